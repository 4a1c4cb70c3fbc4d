/** The page: one picture or scene at a time, asked about once; slider and classes work on the answer. */

import { ApiError, detect, getModels } from "./api.js";
import { renderPng, saveBlob, saveDocument, toCoco, toGeoJson, toJson } from "./downloads.js";
import { listenForFiles } from "./inputs.js";
import { HeatLayers } from "./layers.js";
import { closeProblem, hideBusy, listenForMessages, say, showBusy, showProblem } from "./messages.js";
import { showAnswer, showNotes } from "./panel.js";
import { decodeFile, pictureFor } from "./picture.js";
import { countOf, isAbove, Results } from "./results.js";
import { cancelScene, deleteScene, retryScene, sendScene } from "./scene_api.js";
import { offerScenes, saveSceneFile, showScene } from "./scene_panel.js";
import { follow, grouped, isScene, loadObjects, MOST_DRAWN, sceneInAddress, setAddress } from "./scenes.js";

const LOWEST_SCORE = 0.05; // asked for once; the slider goes no lower
const MOST_DETECTIONS = 1500; // the service's own limit
const LOADING_POLL_MS = 2000;

const byId = (id) => document.getElementById(id);
const results = new Results();
const { viewer } = results;
const layers = new HeatLayers({
  onHeat: (heat) => viewer.update({ heat }),
  onError: (error, again) => showProblem(error, error.code === "unknown-image" ? () => open(file) : again),
});

let loading = null; // promise of the model
let model = null; // of GET /models, once it is loaded
let file = null;
let name = ""; // of the file or scene at hand
let answer = null; // of POST /detect, or
let scene = null; // a job that is done
let work = new AbortController(); // of the picture at hand: a new one cancels it
let stop = null; // what the button beside the progress does

// --- model ---------------------------------------------------------------------------------------------------------

/** Wait for the model; a failure is forgotten, so that the next call tries again. */
function loadModel() {
  loading ??= waitForModel().catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

async function waitForModel() {
  for (;;) {
    [model = null] = await getModels();
    if (model) break;
    byId("model").textContent = "The model is loading …";
    await new Promise((resolve) => setTimeout(resolve, LOADING_POLL_MS));
  }
  byId("model").textContent = `${model.name} ${model.version}`;
  byId("classes-hint").textContent = `It looks for ${model.classes.join(", ")}.`;
  byId("classes-hint").hidden = false;
  layers.offerClasses(model.classes);
}

/** A model may have thresholds below ours; the slider starts at them, so the answer must reach down to them. */
function lowestScore() {
  const { threshold: common, class_thresholds: perClass } = model.postprocess;
  return Math.min(LOWEST_SCORE, common, ...Object.values(perClass));
}

// --- a picture, from file to answer --------------------------------------------------------------------------------

function open(chosen) {
  file = chosen;
  setAddress(null);
  return begin(chosen.name, isScene(chosen) ? sendAsScene : analyse, () => open(chosen));
}

/**
 * Begin with another picture or scene; whatever still goes on for the last one ends.
 * @param {(signal: AbortSignal) => Promise<void>} task
 * @param {() => void} again begins once more after an error
 */
async function begin(title, task, again) {
  work.abort();
  work = new AbortController();
  const { signal } = work;
  name = title;
  stop = cancel;
  reset();
  try {
    await task(signal);
  } catch (error) {
    if (signal.aborted) return;
    setState(viewer.picture ? "picture" : "empty");
    showProblem(error, again);
  } finally {
    if (!signal.aborted) hideBusy();
  }
}

async function analyse(signal) {
  showBusy(`Reading ${file.name}`);
  const decoded = await decodeFile(file);
  signal.throwIfAborted();
  if (decoded) showPicture(decoded);
  await loadModel();
  signal.throwIfAborted();
  const query = { threshold: lowestScore(), max_detections: MOST_DETECTIONS };
  const onProgress = (share) => showUpload(share, "Looking for objects");
  const found = await detect(file, query, onProgress, signal).catch(largeAsNull);
  if (!found) return sendAsScene(signal);
  const picture = await pictureFor(found, decoded, signal);
  signal.throwIfAborted();
  if (picture !== decoded) showPicture(picture);
  showResult(found, picture);
  await layers.setPicture(found.image_id, signal);
}

function largeAsNull(error) {
  if (error.status === 413) return null;
  throw error;
}

/** @param {string} next what goes on when all is sent */
function showUpload(share, next) {
  if (share < 1) showBusy(`Sending ${file.name}, ${Math.round(share * 100)} %`, share);
  else showBusy(next);
}

function showPicture(picture) {
  setState("picture");
  viewer.setPicture(picture);
}

function showResult(found, picture) {
  const notes = [...found.notes];
  if (picture.fromService) {
    notes.push("The browser cannot show this file as it is: this is the service's view of it, perhaps coarser.");
  }
  showAnswer({ ...found, notes }, model);
  answer = found;
  showDetections(found.detections, lowestScore(), "picture");
  const seconds = (found.timing_ms.total / 1000).toFixed(2);
  say(`${countOf(results.shown)} found in ${seconds} s, ${found.estimated_count.toFixed(1)} estimated.`);
}

/** @param {"picture" | "scene" | "crowd"} kind a crowd is a scene of more objects than can be drawn */
function showDetections(detections, lowest, kind) {
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(kind);
  results.fill(detections, lowest, model.postprocess);
  setState("result");
}

function reset() {
  answer = null;
  scene = null;
  layers.forget();
  results.forget();
  closeProblem();
  setState("empty");
}

/** Without a picture: what was there before is left. */
function leave() {
  work.abort();
  hideBusy();
  file = null;
  name = "";
  reset();
  offerScenes();
}

function cancel() {
  work.abort();
  hideBusy();
  setState(viewer.picture ? "picture" : "empty");
  say("Cancelled.");
}

/** @param {"empty" | "waiting" | "picture" | "result"} state without a picture, before one, with one, with an answer */
function setState(state) {
  const hadFocus = byId("empty").contains(document.activeElement);
  byId("main").dataset.state = state;
  byId("empty").hidden = state !== "empty";
  byId("choose-another").hidden = state === "empty";
  for (const id of ["canvas", "tools"]) byId(id).hidden = state === "empty" || state === "waiting";
  byId("panel").hidden = state !== "result";
  byId("canvas").setAttribute("aria-label", name ? `Picture ${name}` : "No picture yet");
  if (!hadFocus || state === "empty") return;
  byId(state === "waiting" ? "choose-another" : "canvas").focus(); // the button that had it is gone
}

// --- a scene, from file or address to answer ------------------------------------------------------------------------

async function sendAsScene(signal) {
  showUpload(0);
  await loadModel();
  signal.throwIfAborted();
  const query = { heat: byId("keep-heat").checked };
  const job = await sendScene(file, query, (share) => showUpload(share, "Waiting for the service"), signal);
  setAddress(job.id);
  openScene(job.id);
}

function openScene(id) {
  return begin("scene", (signal) => watch(id, signal), () => openScene(id));
}

async function watch(id, signal) {
  setState("waiting");
  showBusy("Looking for the scene");
  await loadModel();
  stop = () => stopScene(id);
  const job = await follow(id, showPicture, signal);
  stop = cancel;
  name = job.name;
  if (job.state === "done") return showFound(job, signal);
  setState(viewer.picture ? "picture" : "empty");
  const kept = `${grouped(job.tiles.done)} of ${grouped(job.tiles.total)} tiles are finished and kept.`;
  const title = job.state === "failed" ? "The scene failed" : "The scene was cancelled";
  showProblem(new ApiError(0, title, job.error ?? kept, { retryAfter: 0 }), () => retry(id));
}

async function showFound(job, signal) {
  showBusy("Fetching the objects");
  const isCrowd = job.objects > MOST_DRAWN;
  const isOwn = (item) => isAbove(item, model.postprocess);
  const found = isCrowd ? { items: [], lowest: LOWEST_SCORE } : await loadObjects(job, LOWEST_SCORE, isOwn, signal);
  signal.throwIfAborted();
  scene = job;
  const crowd = `The page draws up to ${grouped(MOST_DRAWN)} objects; the files below have all of these.`;
  showNotes([...job.notes, viewer.picture.note, isCrowd ? crowd : ""].filter(Boolean));
  showScene(job, model);
  showDetections(found.items, found.lowest, isCrowd ? "crowd" : "scene");
  say(`${grouped(job.objects)} objects found in ${job.name}.`);
}

/** The scene's own events tell what comes of it, also where it ended before it could be cancelled. */
function stopScene(id) {
  byId("cancel").disabled = true;
  cancelScene(id).catch((error) => {
    if (error.status === 409) return;
    byId("cancel").disabled = false;
    showProblem(error);
  });
}

function retry(id) {
  retryScene(id).then(() => openScene(id), (error) => showProblem(error, () => retry(id)));
}

function removeScene() {
  deleteScene(scene.id).then(() => (setAddress(null), leave()), (error) => showProblem(error, removeScene));
}

async function saveScene(kind) {
  const saving = new AbortController();
  work.signal.addEventListener("abort", () => saving.abort(), { once: true });
  stop = () => (saving.abort(), hideBusy());
  const query = results.threshold === null ? {} : { threshold: results.threshold };
  const classes = results.legend.shownNames();
  if (classes) query.classes = classes.join(",");
  await saveSceneFile(scene, kind, query, stem(), saving.signal);
}

/** The address names another scene, or none: somebody went back, or followed a link. */
function followAddress() {
  const id = sceneInAddress();
  if (id) openScene(id);
  else leave();
}

// --- ways in and out -----------------------------------------------------------------------------------------------

function stem() {
  return name.replace(/\.[^.]*$/, "") || "picture";
}

function savePng() {
  const made = renderPng(viewer).then((blob) => saveBlob(blob, `${stem()}.boxes.png`));
  made.catch((error) => showProblem(new ApiError(0, "No PNG was made", error.message)));
}

function listenForDownloads() {
  const named = (ending) => stem() + ending;
  const on = (id, action) => byId(id).addEventListener("click", action);
  on("save-json", () => saveDocument(toJson(answer, results.shown), named(".json"), "application/json"));
  on("save-geojson", () => saveDocument(toGeoJson(answer, results.shown), named(".geojson"), "application/geo+json"));
  on("save-coco", () => {
    saveDocument(toCoco(answer, results.shown, model.classes, file.name), named(".coco.json"), "application/json");
  });
  on("save-png", savePng);
  on("scene-downloads", ({ target: { value } }) => {
    if (value === "png") savePng();
    else if (value) saveScene(value);
  });
}

function start() {
  const begun = sceneInAddress() ? openScene(sceneInAddress()) : loadModel().then(offerScenes);
  begun.catch((error) => showProblem(error, start));
}

listenForMessages();
listenForFiles(open);
addEventListener("hashchange", followAddress);
byId("cancel").addEventListener("click", () => stop());
byId("delete-scene").addEventListener("click", removeScene);
listenForDownloads();
start();
