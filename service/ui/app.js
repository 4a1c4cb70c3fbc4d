/** The page: one picture at a time, asked about once; slider, classes and opacity work on the answer. */

import { ApiError, detect, getModels } from "./api.js";
import { classColor, describe } from "./boxes.js";
import { renderPng, saveBlob, saveDocument, toCoco, toGeoJson, toJson } from "./downloads.js";
import { HeatLayers } from "./layers.js";
import { closeProblem, hideBusy, listenForMessages, say, showBusy, showProblem } from "./messages.js";
import { DetectionList, Legend, showAnswer } from "./panel.js";
import { decodeFile, pictureFor } from "./picture.js";
import { Viewer } from "./viewer.js";

const LOWEST_SCORE = 0.05; // asked for once; the slider goes no lower
const MOST_DETECTIONS = 1500; // the service's own limit
const LOADING_POLL_MS = 2000;

const byId = (id) => document.getElementById(id);
const viewer = new Viewer(byId("canvas"), {
  onPick: (item) => select(item),
  onZoom: (scale) => (byId("zoom").textContent = `${Math.round(scale * 100)} %`),
});
const legend = new Legend(byId("legend"), refresh);
const list = new DetectionList(byId("list"), {
  onSelect: (item) => (select(item), viewer.reveal(item)),
  onOpen: (item) => (select(item), viewer.zoomTo(item)),
});
const layers = new HeatLayers({
  onHeat: (heat) => viewer.update({ heat }),
  onError: (error, again) => showProblem(error, error.code === "unknown-image" ? () => open(file) : again),
});

let loading = null; // promise of the model
let model = null; // of GET /models, once it is loaded
let file = null;
let answer = null;
let shown = []; // detections above the threshold, of classes that are not hidden
let threshold = null; // null: the model's own, which may differ by class
let work = new AbortController(); // of the picture at hand: a new one cancels it

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

function modelThreshold(label) {
  const { threshold: common, class_thresholds: perClass } = model.postprocess;
  return perClass[label] ?? common;
}

/** A model may have thresholds below ours; the slider starts at them, so the answer must reach down to them. */
function lowestScore() {
  const { threshold: common, class_thresholds: perClass } = model.postprocess;
  return Math.min(LOWEST_SCORE, common, ...Object.values(perClass));
}

// --- a picture, from file to answer --------------------------------------------------------------------------------

async function open(chosen) {
  work.abort();
  work = new AbortController();
  const { signal } = work;
  file = chosen;
  reset();
  try {
    await analyse(signal);
  } catch (error) {
    if (signal.aborted) return;
    setState(viewer.picture ? "picture" : "empty");
    showProblem(error, () => open(chosen));
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
  const found = await detect(file, query, showUpload, signal);
  const picture = await pictureFor(found, decoded, signal);
  signal.throwIfAborted();
  if (picture !== decoded) showPicture(picture);
  showResult(found, picture);
  await layers.setPicture(found.image_id, signal);
}

function showUpload(share) {
  if (share < 1) showBusy(`Sending ${file.name}, ${Math.round(share * 100)} %`, share);
  else showBusy("Looking for objects");
}

function showPicture(picture) {
  setState("picture");
  viewer.setPicture(picture);
}

function showResult(found, picture) {
  answer = found;
  const notes = [...found.notes];
  if (picture.fromService) {
    notes.push("The browser cannot show this file as it is: this is the service's view of it, perhaps coarser.");
  }
  showAnswer({ ...found, notes }, model);
  legend.fill(found.detections);
  list.fill(found.detections);
  useModelThreshold();
  setState("result");
  const seconds = (found.timing_ms.total / 1000).toFixed(2);
  say(`${countOf(shown)} found in ${seconds} s, ${found.estimated_count.toFixed(1)} estimated.`);
}

function reset() {
  answer = null;
  shown = [];
  layers.forget();
  viewer.setPicture(null);
  closeProblem();
  select(null);
  setState("empty");
}

function cancel() {
  work.abort();
  hideBusy();
  setState(viewer.picture ? "picture" : "empty");
  say("Cancelled.");
}

/** @param {"empty" | "picture" | "result"} state without a picture, with one, with an answer too */
function setState(state) {
  const hadFocus = byId("empty").contains(document.activeElement);
  byId("main").dataset.state = state;
  byId("empty").hidden = state !== "empty";
  for (const id of ["canvas", "tools", "choose-another"]) byId(id).hidden = state === "empty";
  byId("panel").hidden = state !== "result";
  byId("canvas").setAttribute("aria-label", file ? `Picture ${file.name}` : "No picture yet");
  if (hadFocus && state !== "empty") byId("canvas").focus(); // the button that had it is gone
}

// --- what is shown -------------------------------------------------------------------------------------------------

/** Threshold or classes have changed: everything that depends on them follows, without a call. */
function refresh() {
  const above = answer.detections.filter((item) => item.score > (threshold ?? modelThreshold(item.label)));
  shown = above.filter((item) => legend.isShown(item.class_id));
  legend.count(above);
  list.show(shown);
  byId("shown").textContent = String(shown.length);
  if (viewer.selected && !shown.includes(viewer.selected)) select(null);
  viewer.update({ items: shown });
}

function useModelThreshold() {
  threshold = null;
  byId("threshold").min = String(lowestScore());
  byId("threshold").value = String(model.postprocess.threshold);
  byId("threshold-value").textContent = `${model.postprocess.threshold.toFixed(2)} (model's own)`;
  byId("own-threshold").disabled = true;
  refresh();
}

function moveThreshold() {
  threshold = Number(byId("threshold").value);
  byId("threshold-value").textContent = threshold.toFixed(2);
  byId("own-threshold").disabled = false;
  refresh();
}

function showClasses(isShown) {
  legend.setAll(isShown);
  refresh();
}

function select(item) {
  viewer.update({ selected: item });
  list.select(item);
  byId("selected").hidden = item === null;
  if (!item) return;
  const { score, size, place } = describe(item);
  byId("selected-swatch").style.setProperty("--class", classColor(item.class_id));
  byId("selected-label").textContent = item.label;
  byId("selected-score").textContent = score;
  byId("selected-size").textContent = `${size} ${place}`;
  say(`${item.label}, score ${score}, ${size}`);
}

function countOf({ length }) {
  return length === 1 ? "1 object" : `${length} objects`;
}

// --- ways in and out -----------------------------------------------------------------------------------------------

function openFirst([first]) {
  if (first) open(first);
  else showProblem(new ApiError(0, "No picture in it", "Drop or paste the file itself: the service fetches no links."));
}

function listenForPictures() {
  for (const id of ["choose", "choose-another"]) byId(id).addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) openFirst(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop-cover").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop-cover").hidden = true; // it has left the window
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop-cover").hidden = true;
    openFirst(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.target !== byId("key")) openFirst(event.clipboardData.files);
  });
}

function listenForControls() {
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on("threshold", "input", moveThreshold);
  on("threshold", "change", () => say(`${countOf(shown)} shown.`));
  on("own-threshold", "click", useModelThreshold);
  on("labels", "change", (event) => viewer.update({ labels: event.target.checked }));
  on("all-classes", "click", () => showClasses(true));
  on("no-classes", "click", () => showClasses(false));
  on("opacity", "input", (event) => viewer.update({ opacity: Number(event.target.value) }));
  on("zoom-in", "click", () => viewer.zoomBy(1.5));
  on("zoom-out", "click", () => viewer.zoomBy(1 / 1.5));
  on("fit", "click", () => viewer.fit());
  on("deselect", "click", () => select(null));
  on("cancel", "click", cancel);
}

function listenForDownloads() {
  const named = (ending) => `${file.name.replace(/\.[^.]*$/, "") || "picture"}${ending}`;
  const on = (id, action) => byId(id).addEventListener("click", action);
  on("save-json", () => saveDocument(toJson(answer, shown), named(".json"), "application/json"));
  on("save-geojson", () => saveDocument(toGeoJson(answer, shown), named(".geojson"), "application/geo+json"));
  on("save-coco", () => {
    saveDocument(toCoco(answer, shown, model.classes, file.name), named(".coco.json"), "application/json");
  });
  on("save-png", () => {
    const made = renderPng(viewer).then((blob) => saveBlob(blob, named(".boxes.png")));
    made.catch((error) => showProblem(new ApiError(0, "No PNG was made", error.message)));
  });
}

function start() {
  loadModel().catch((error) => showProblem(error, start));
}

listenForMessages();
listenForPictures();
listenForControls();
listenForDownloads();
start();
