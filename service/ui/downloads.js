/** Documents of the detections that are shown, in the shapes of POST /detect?format=..., and how they are saved. */

import { drawBoxes } from "./boxes.js";
import { drawHeat } from "./heat.js";

/** The answer itself, with the detections shown. */
export function toJson(answer, detections) {
  return { ...answer, detections };
}

/** As service/formats.py: polygons in pixels, y negative downwards, so that they lie on the picture in a GIS. */
export function toGeoJson(answer, detections) {
  return {
    type: "FeatureCollection",
    coordinate_system:
      "pixels of the picture as displayed, from its top-left corner: x to the right, y negative downwards",
    picture: pictureNote(answer),
    features: detections.map((item) => ({
      type: "Feature",
      geometry: { type: "Polygon", coordinates: [ring(item.box)] },
      properties: {
        label: item.label,
        class_id: item.class_id,
        score: item.score,
        model: `${answer.model.name}/${answer.model.version}`,
      },
    })),
  };
}

/** As service/formats.py: a data set of one picture, whose annotations also serve as results. */
export function toCoco(answer, detections, classes, fileName) {
  return {
    info: pictureNote(answer),
    images: [{ id: 1, file_name: fileName, width: answer.width, height: answer.height }],
    categories: classes.map((name, classId) => ({ id: classId + 1, name })),
    annotations: detections.map((item, index) => {
      const [x1, y1, x2, y2] = item.box;
      const [width, height] = [round(x2 - x1), round(y2 - y1)];
      return {
        id: index + 1,
        image_id: 1,
        category_id: item.class_id + 1,
        bbox: [x1, y1, width, height],
        area: round(width * height),
        iscrowd: 0,
        score: item.score,
      };
    }),
  };
}

/** Picture, heat and boxes at the picture's own resolution, as a PNG. */
export async function renderPng({ picture, items, heat, opacity, labels }) {
  const { width, height } = picture.bitmap;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.scale(width / picture.width, height / picture.height);
  context.drawImage(picture.bitmap, 0, 0, picture.width, picture.height);
  if (heat) drawHeat(context, heat, picture, opacity);
  context.resetTransform();
  const font = Math.max(11, Math.round(Math.max(width, height) / 90));
  const style = { line: font / 8, font, labels, selected: null, width, height };
  drawBoxes(context, items, { scale: width / picture.width, x: 0, y: 0 }, style);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error(`this browser cannot write a PNG of ${width} × ${height} px`);
  return blob;
}

export function saveDocument(content, name, type) {
  saveBlob(new Blob([`${JSON.stringify(content, null, 1)}\n`], { type }), name);
}

export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser reads it after the click returns
}

/** Closed and counter-clockwise where y points up; `0 - y`, because `-y` makes a -0 of 0. */
function ring([x1, y1, x2, y2]) {
  const [top, bottom] = [0 - y1, 0 - y2];
  return [[x1, bottom], [x2, bottom], [x2, top], [x1, top], [x1, bottom]];
}

function pictureNote({ image_id, width, height, model }) {
  return { image_id, width, height, model };
}

function round(value) {
  return Math.round(value * 100) / 100;
}
