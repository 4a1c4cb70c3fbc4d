/** What is shown of an answer: threshold, classes and the selected box. Nothing here calls the service. */

import { classColor, describe } from "./boxes.js";
import { say } from "./messages.js";
import { DetectionList, Legend } from "./panel.js";
import { Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);

/** Whether an object counts as found; by default at the model's own thresholds, which may differ by class. */
export function isAbove(item, { threshold: common, class_thresholds: perClass }, threshold = null) {
  return item.score > (threshold ?? perClass[item.label] ?? common);
}

export class Results {
  constructor() {
    this.viewer = new Viewer(byId("canvas"), {
      onPick: (item) => this.select(item),
      onZoom: (scale) => (byId("zoom").textContent = `${Math.round(scale * 100)} %`),
    });
    this.legend = new Legend(byId("legend"), () => this.refresh());
    this.list = new DetectionList(byId("list"), {
      onSelect: (item) => (this.select(item), this.viewer.reveal(item)),
      onOpen: (item) => (this.select(item), this.viewer.zoomTo(item)),
    });
    this.listen();
    this.forget();
  }

  /** Before a new picture: nothing of the last one may show. */
  forget() {
    this.detections = [];
    this.shown = []; // those above the threshold, of classes that are not hidden
    this.threshold = null; // null: the model's own
    this.viewer.setPicture(null);
    this.select(null);
  }

  /**
   * @param {object[]} detections best first
   * @param {number} lowest the score down to which they are all there
   * @param {object} own the model's postprocess
   */
  fill(detections, lowest, own) {
    Object.assign(this, { detections, own });
    byId("threshold").min = String(lowest);
    this.legend.fill(detections);
    this.list.fill(detections);
    this.useOwnThreshold();
  }

  /** Threshold or classes have changed: everything that depends on them follows. */
  refresh() {
    const above = this.detections.filter((item) => isAbove(item, this.own, this.threshold));
    this.shown = above.filter((item) => this.legend.isShown(item.class_id));
    this.legend.count(above);
    this.list.show(this.shown);
    byId("shown").textContent = String(this.shown.length);
    if (this.viewer.selected && !this.shown.includes(this.viewer.selected)) this.select(null);
    this.viewer.update({ items: this.shown });
  }

  useOwnThreshold() {
    this.threshold = null;
    byId("threshold").value = String(this.own.threshold);
    byId("threshold-value").textContent = `${this.own.threshold.toFixed(2)} (model's own)`;
    byId("own-threshold").disabled = true;
    this.refresh();
  }

  moveThreshold() {
    this.threshold = Number(byId("threshold").value);
    byId("threshold-value").textContent = this.threshold.toFixed(2);
    byId("own-threshold").disabled = false;
    this.refresh();
  }

  showClasses(isShown) {
    this.legend.setAll(isShown);
    this.refresh();
  }

  select(item) {
    this.viewer.update({ selected: item });
    this.list.select(item);
    byId("selected").hidden = item === null;
    if (!item) return;
    const { score, size, place } = describe(item);
    byId("selected-swatch").style.setProperty("--class", classColor(item.class_id));
    byId("selected-label").textContent = item.label;
    byId("selected-score").textContent = score;
    byId("selected-size").textContent = `${size} ${place}`;
    say(`${item.label}, score ${score}, ${size}`);
  }

  listen() {
    const on = (id, event, action) => byId(id).addEventListener(event, action);
    on("threshold", "input", () => this.moveThreshold());
    on("threshold", "change", () => say(`${countOf(this.shown)} shown.`));
    on("own-threshold", "click", () => this.useOwnThreshold());
    on("labels", "change", (event) => this.viewer.update({ labels: event.target.checked }));
    on("all-classes", "click", () => this.showClasses(true));
    on("no-classes", "click", () => this.showClasses(false));
    on("opacity", "input", (event) => this.viewer.update({ opacity: Number(event.target.value) }));
    on("zoom-in", "click", () => this.viewer.zoomBy(1.5));
    on("zoom-out", "click", () => this.viewer.zoomBy(1 / 1.5));
    on("fit", "click", () => this.viewer.fit());
    on("deselect", "click", () => this.select(null));
  }
}

export function countOf({ length }) {
  return length === 1 ? "1 object" : `${length} objects`;
}
