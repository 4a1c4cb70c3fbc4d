/** From a file to pixels that a canvas can draw, in the frame that boxes are in. */

import { getView } from "./api.js";

/** The browser's own reading, EXIF orientation applied; null where it cannot decode the file. */
export async function decodeFile(file) {
  try {
    return toPicture(await createImageBitmap(file, { imageOrientation: "from-image" }));
  } catch {
    return null; // TIFF, and whatever else only the service can read
  }
}

/**
 * The picture to draw below an answer: the browser's, or the service's where there is none or its size differs
 * (orientation tags that browsers do not follow). The service's view may be smaller; it is drawn at the full size.
 */
export async function pictureFor(answer, decoded, signal) {
  if (decoded?.width === answer.width && decoded.height === answer.height) return decoded;
  const bitmap = await createImageBitmap(await getView(answer.image_id, signal));
  return { bitmap, width: answer.width, height: answer.height, fromService: true };
}

function toPicture(bitmap) {
  return { bitmap, width: bitmap.width, height: bitmap.height, fromService: false };
}
