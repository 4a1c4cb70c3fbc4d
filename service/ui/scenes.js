/** A scene on the page: which files become one, its progress in words, its view and its objects. */

import { showBusy } from "./messages.js";
import { followScene, getPreview, getResult, patiently } from "./scene_api.js";

export const MOST_DRAWN = 20_000; // objects; more are only counted
const MIB = 1024 ** 2;
const LARGE_TIFF = MIB; // browsers cannot show TIFFs, and most are maps, whose objects belong on the ground
const LARGE = 16 * MIB;
const VIEW_SIDE = 2048; // pixels of the view
const VIEW_NOTE = "This is a down-sampled view; boxes and sizes are in the scene's own pixels.";
const ADDRESS = /^#scene=([0-9a-f]{32})$/;

/** Whether a file goes as a scene at once; what POST /detect finds too large goes as one, too. */
export function isScene({ name, size }) {
  return size > (/\.tiff?$/i.test(name) ? LARGE_TIFF : LARGE);
}

/** The scene that the page's address names, so that a reload finds it again. */
export function sceneInAddress() {
  return ADDRESS.exec(location.hash)?.[1] ?? null;
}

export function setAddress(id) {
  if (id !== sceneInAddress()) history.pushState(null, "", id ? `#scene=${id}` : location.pathname + location.search);
}

/**
 * Tell how far a scene is until it has ended, and draw it as soon as it can be seen; returns how it ended.
 * @param {(picture: object) => void} onPicture gets the view
 */
export async function follow(id, onPicture, signal) {
  let view = null;
  const ended = await followScene(
    id,
    (job) => {
      showProgress(job);
      if (job.width) view ??= loadView(job, signal).then(onPicture);
      view?.catch(() => {}); // it is heard below, after the end
    },
    signal,
  );
  if (view) showBusy("Drawing the scene");
  await view;
  return ended;
}

async function loadView(job, signal) {
  const { width, height } = job;
  try {
    const blob = await patiently(() => getPreview(job.id, VIEW_SIDE, signal), signal);
    return { bitmap: await createImageBitmap(blob), width, height, note: VIEW_NOTE };
  } catch (error) {
    signal.throwIfAborted();
    const note = `The scene cannot be shown: ${error.detail || error.message}.`;
    return { bitmap: await createImageBitmap(new ImageData(1, 1)), width, height, note }; // its objects still can
  }
}

function showProgress(job) {
  switch (job.state) {
    case "queued":
      return showBusy(`${job.name} waits for its turn`);
    case "reading":
      return showBusy(`Checking ${job.name}`);
    case "running": {
      const share = job.tiles.done / job.tiles.total;
      return showBusy(`Looking for objects in ${job.name}, ${Math.floor(share * 100)} %`, share, figures(job));
    }
    case "merging":
      return showBusy("Putting the tiles together", undefined, figures(job));
  }
}

function figures({ tiles, objects, megapixels_per_second: rate, eta_seconds: eta }) {
  return [
    `${grouped(tiles.done)} of ${grouped(tiles.total)} tiles`,
    `${grouped(objects)} objects so far`,
    rate === null ? "" : `${rate.toPrecision(2)} megapixels/s`,
    eta === null ? "" : `${duration(eta)} left`,
  ]
    .filter(Boolean)
    .join(" · ");
}

export function grouped(count) {
  return count.toLocaleString("en");
}

function duration(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${(seconds / 3600).toFixed(1)} h`;
}

/**
 * The objects of a scene that is done, best first, and the score above which they are all there. Those that the
 * model's own thresholds let pass all are, so a low threshold may be out of reach where there are many.
 * @param {(item: object) => boolean} isOwn whether the model's own thresholds let an object pass
 */
export async function loadObjects(job, lowest, isOwn, signal) {
  const query = { format: "coco", threshold: lowest };
  const blob = await patiently(() => getResult(job.id, query, signal), signal);
  const document = JSON.parse(await blob.text());
  const items = document.annotations.map(({ category_id: id, bbox: [x, y, width, height], score }) => {
    const label = document.categories[id - 1].name;
    return { label, class_id: id - 1, score, box: [x, y, x + width, y + height] };
  });
  items.sort((first, second) => second.score - first.score);
  if (items.length <= MOST_DRAWN) return { items, lowest };
  const others = items.filter((item) => !isOwn(item));
  const dropped = new Set(others.slice(MOST_DRAWN - (items.length - others.length)));
  const [best] = dropped;
  return { items: items.filter((item) => !dropped.has(item)), lowest: Math.ceil(best.score * 100) / 100 };
}
