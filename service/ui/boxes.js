/** Boxes and their labels on a canvas; the page and the PNG draw them alike. */

const COLORS = [
  "#ff4d5e", "#2fb8ff", "#ffd23f", "#4be07b", "#ff8a2b", "#b98bff",
  "#ff74d4", "#17e0d0", "#c6f135", "#ffb9a6", "#93b6ff", "#f2f2f2",
];
const MOST_LABELLED = 2000; // boxes in sight; among more there is no room for labels
const LEAST_SIDE = 4; // canvas pixels; a smaller box is drawn as large as this, so that it can be seen
const MOST_LABELS = 400; // more cannot be read on any screen, and each is tried against all others

/** The colour of a class; beyond the list, hues that lie far apart. */
export function classColor(classId) {
  return COLORS[classId] ?? `hsl(${Math.round((classId * 137.508) % 360)} 85% 64%)`;
}

export function describe(item) {
  const [x1, y1, x2, y2] = item.box;
  return {
    score: item.score.toFixed(2),
    size: `${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)} px`,
    place: `at ${((x1 + x2) / 2).toFixed(0)}, ${((y1 + y2) / 2).toFixed(0)}`,
  };
}

/**
 * Draw boxes given in picture pixels.
 * @param view {scale, x, y}: picture pixels times scale plus (x, y) are canvas pixels
 * @param style {line, font, labels, selected, width, height}: sizes in canvas pixels, labels yes or no,
 *   the selected item, the size of the canvas
 */
export function drawBoxes(context, items, view, style) {
  const shapes = items.map((item) => toShape(item, view)).filter((shape) => touches(shape, style));
  const chosen = shapes.filter((shape) => shape.item === style.selected);
  const others = shapes.filter((shape) => shape.item !== style.selected);
  context.save();
  context.lineJoin = "round";
  for (const shape of others.toReversed()) strokeBox(context, shape, style.line); // best on top
  for (const shape of chosen) strokeChosen(context, shape, style.line);
  const labelled = style.labels && shapes.length <= MOST_LABELLED ? [...chosen, ...others] : chosen;
  drawLabels(context, labelled, shapes, style);
  context.restore();
}

/** The smallest box that holds a point of the picture, or passes within `reach` of it. */
export function boxAt(items, x, y, reach) {
  const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  const holds = ({ box: [x1, y1, x2, y2] }) =>
    x >= x1 - reach && x <= x2 + reach && y >= y1 - reach && y <= y2 + reach;
  return items.filter(holds).reduce((best, item) => (!best || area(item) < area(best) ? item : best), null);
}

function toShape(item, { scale, x, y }) {
  const [x1, y1, x2, y2] = item.box;
  const growX = Math.max(0, LEAST_SIDE - (x2 - x1) * scale) / 2;
  const growY = Math.max(0, LEAST_SIDE - (y2 - y1) * scale) / 2;
  return {
    item,
    left: x1 * scale + x - growX,
    top: y1 * scale + y - growY,
    right: x2 * scale + x + growX,
    bottom: y2 * scale + y + growY,
  };
}

function touches(shape, { width, height }) {
  return shape.right >= 0 && shape.bottom >= 0 && shape.left <= width && shape.top <= height;
}

function strokeBox(context, { item, left, top, right, bottom }, line) {
  context.strokeStyle = "rgb(0 0 0 / 60%)"; // a dark edge, so that light boxes stand out on light ground
  context.lineWidth = line * 2;
  context.strokeRect(left, top, right - left, bottom - top);
  context.strokeStyle = classColor(item.class_id);
  context.lineWidth = line;
  context.strokeRect(left, top, right - left, bottom - top);
}

function strokeChosen(context, shape, line) {
  const { left, top, right, bottom } = shape;
  context.strokeStyle = "#ffffff";
  context.lineWidth = line * 4;
  context.strokeRect(left, top, right - left, bottom - top);
  strokeBox(context, shape, line * 1.5);
}

/** A label goes to the first free place at its box; where there is none, zooming in makes room. */
function drawLabels(context, labelled, shapes, style) {
  context.font = `600 ${style.font}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const taken = [];
  for (const shape of labelled.slice(0, MOST_LABELS)) {
    const text = `${shape.item.label} ${shape.item.score.toFixed(2)}`;
    const size = { width: context.measureText(text).width + style.font * 0.7, height: style.font * 1.45 };
    const places = labelPlaces(shape, size, style);
    const isFree = (place) => !taken.some((other) => overlap(place, other)) && !coversBoxes(place, shapes);
    const place = shape.item === style.selected ? places[0] : places.find(isFree);
    if (!place) continue;
    taken.push(place);
    context.fillStyle = classColor(shape.item.class_id);
    context.beginPath();
    context.roundRect(place.left, place.top, size.width, size.height, style.font * 0.25);
    context.fill();
    context.fillStyle = "#0b0f13";
    context.fillText(text, place.left + style.font * 0.35, place.top + size.height * 0.53);
  }
}

/** Above, below, to the right, to the left: inside the canvas and against the box. */
function labelPlaces({ left, top, right, bottom }, { width, height }, style) {
  const gap = style.line * 1.5;
  const corners = [
    [left - style.line, top - height - gap],
    [left - style.line, bottom + gap],
    [right + gap, top],
    [left - width - gap, top],
  ];
  return corners.map(([x, y]) => {
    const placeLeft = Math.max(0, Math.min(style.width - width, x));
    const placeTop = Math.max(0, Math.min(style.height - height, y));
    return { left: placeLeft, top: placeTop, right: placeLeft + width, bottom: placeTop + height };
  });
}

/** Whether a label would hide an object, its own included; it may lie within a box that is much larger. */
function coversBoxes(place, shapes) {
  return shapes.some((shape) => overlap(place, shape) && !encloses(shape, place));
}

function encloses(outer, inner) {
  const across = outer.left <= inner.left && outer.right >= inner.right;
  return across && outer.top <= inner.top && outer.bottom >= inner.bottom;
}

function overlap(first, second) {
  const across = first.left < second.right && second.left < first.right;
  return across && first.top < second.bottom && second.top < first.bottom;
}
