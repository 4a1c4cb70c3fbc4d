/** What the page says of scenes: the list of those that are kept, the figures of one, its files. */

import { saveBlob } from "./downloads.js";
import { hideBusy, showBusy, showProblem } from "./messages.js";
import { element, showFacts } from "./panel.js";
import { getHeatRaster, getResult, listScenes } from "./scene_api.js";
import { grouped } from "./scenes.js";

const ENDINGS = { geojson: ".geojson", gpkg: ".gpkg", coco: ".coco.json", csv: ".csv", heat: ".heat.tif" };
const MOST_OFFERED = 6;

const byId = (id) => document.getElementById(id);

/** Offer the newest scenes. Nothing is said where there are none, or the list cannot be had: the page works without. */
export async function offerScenes() {
  const jobs = await listScenes().catch(() => []);
  const rows = jobs.slice(0, MOST_OFFERED).map((job) => {
    const link = element("a", { href: `#scene=${job.id}` }, job.name);
    return element("li", {}, link, element("span", { className: "muted" }, words(job)));
  });
  byId("scene-list").replaceChildren(...rows);
  byId("scenes").hidden = rows.length === 0;
}

function words({ state, tiles, objects }) {
  if (state === "done") return `${grouped(objects)} objects`;
  return state === "running" ? `${Math.floor((tiles.done / tiles.total) * 100)} %` : state;
}

/** Figures and facts of a scene that is done. */
export function showScene(job, model) {
  const megapixels = (job.width * job.height) / 1e6;
  byId("found").textContent = grouped(job.objects);
  byId("megapixels").textContent = megapixels.toLocaleString("en", { maximumSignificantDigits: 3 });
  byId("timing").replaceChildren();
  byId("scene-downloads").querySelector("[value=heat]").hidden = !job.heat;
  showFacts({
    model: `${model.name} ${model.version}`,
    "this scene": `${grouped(job.width)} × ${grouped(job.height)} px`,
    file: `${grouped(job.bytes)} bytes`,
    tiles: `${grouped(job.tiles.total)}, ${grouped(job.tiles.skipped)} of them without a pixel`,
    sent: new Date(job.created).toLocaleString(),
    "scene id": job.id,
  });
}

/** Save a file of a scene; the query says which objects it holds. */
export async function saveSceneFile(job, kind, query, name, signal) {
  showBusy(`Making ${name}${ENDINGS[kind]}`);
  try {
    const isHeat = kind === "heat";
    const blob = await (isHeat ? getHeatRaster(job.id, signal) : getResult(job.id, { format: kind, ...query }, signal));
    saveBlob(blob, name + ENDINGS[kind]);
  } catch (error) {
    if (!signal.aborted) showProblem(error, () => saveSceneFile(job, kind, query, name, signal));
  } finally {
    if (!signal.aborted) hideBusy();
  }
}
