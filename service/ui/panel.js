/** The side panel: figures, classes, the list of detections, times. All words go in as text, never as markup. */

import { classColor, describe } from "./boxes.js";

export const MOST_LISTED = 1500; // more rows than anyone walks through make the page slow

const byId = (id) => document.getElementById(id);

/** An element with properties and children; children that are strings become text. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function swatch(classId) {
  const node = element("span", { className: "swatch" });
  node.style.setProperty("--class", classColor(classId));
  return node;
}

/** What does not change with the slider. */
export function showAnswer(answer, model) {
  byId("estimated").textContent = answer.estimated_count.toFixed(1);
  byId("queries").textContent = String(answer.query_count);
  showNotes(answer.notes);
  showTiming(answer.timing_ms);
  const { query, input } = model;
  showFacts({
    model: `${answer.model.name} ${answer.model.version}`,
    "sha256 of model.json": `${answer.model.sha256.slice(0, 16)}…`,
    "runs on": `${model.provider.replace("ExecutionProvider", "")}, ${model.precision}`,
    "sees pictures at": `${input.size} × ${input.size} px`,
    "queries per picture": `${query.k_min} to ${query.k_max}`,
    "this picture": `${answer.width} × ${answer.height} px`,
    "image id": answer.image_id,
  });
}

export function showNotes(notes) {
  byId("notes").hidden = notes.length === 0;
  byId("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
}

/** @param {Record<string, string>} facts values by their names */
export function showFacts(facts) {
  const rows = Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  byId("facts").replaceChildren(...rows);
}

function showTiming({ total, ...steps }) {
  const row = (className, name, value, bar) => {
    const title = element("th", { scope: "row" }, name);
    return element("tr", { className }, title, element("td", {}, ...bar), element("td", {}, `${value.toFixed(1)} ms`));
  };
  const rows = Object.entries(steps).map(([step, value]) => {
    const name = step.replace("_", " ");
    return row("step", name, value, [element("meter", { max: total, value, ariaLabel: `${name}, of the total` })]);
  });
  byId("timing").replaceChildren(...rows, row("sum", "total", total, []));
}

/** One line for each class that the answer has, with a box to hide it. */
export class Legend {
  constructor(list, onChange) {
    this.list = list;
    this.lines = new Map();
    list.addEventListener("change", onChange);
  }

  fill(detections) {
    const present = new Map(detections.map((item) => [item.class_id, item.label]));
    this.lines = new Map();
    for (const [classId, label] of [...present].sort(([first], [second]) => first - second)) {
      const toggle = element("input", { type: "checkbox", checked: true });
      toggle.style.setProperty("--class", classColor(classId));
      const count = element("span", { className: "count" });
      const name = element("span", { className: "name" }, label);
      const line = element("li", {}, element("label", {}, toggle, name, count));
      this.lines.set(classId, { label, toggle, count, line });
    }
    this.list.replaceChildren(...[...this.lines.values()].map(({ line }) => line));
  }

  setAll(checked) {
    for (const { toggle } of this.lines.values()) toggle.checked = checked;
  }

  isShown(classId) {
    return this.lines.get(classId).toggle.checked;
  }

  /** Names of the classes that are not hidden; null where none is. */
  shownNames() {
    const lines = [...this.lines.values()];
    const shown = lines.filter(({ toggle }) => toggle.checked);
    return shown.length === lines.length ? null : shown.map(({ label }) => label);
  }

  /** Counts above the threshold, of hidden classes too. */
  count(detections) {
    const counts = new Map();
    for (const { class_id: classId } of detections) counts.set(classId, (counts.get(classId) ?? 0) + 1);
    for (const [classId, { count, line }] of this.lines) {
      count.textContent = String(counts.get(classId) ?? 0);
      line.classList.toggle("none", !counts.has(classId));
    }
  }
}

/** A listbox of the best detections. Rows are made once; the slider only hides and shows them. */
export class DetectionList {
  /**
   * @param {(item: object) => void} onSelect a row was reached by key
   * @param {(item: object) => void} onOpen a row was clicked, or Enter pressed on it
   */
  constructor(list, { onSelect, onOpen }) {
    Object.assign(this, { list, onSelect, onOpen, rows: new Map(), shown: [], selected: null });
    list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) onOpen(this.items[Number(row.dataset.index)]);
    });
    list.addEventListener("keydown", (event) => this.onKey(event));
  }

  fill(items) {
    this.items = items.slice(0, MOST_LISTED);
    this.rows = new Map(this.items.map((item, index) => [item, this.makeRow(item, index)]));
    this.list.replaceChildren(...this.rows.values());
    this.list.scrollTop = 0;
  }

  makeRow(item, index) {
    const { score, size } = describe(item);
    const row = element("li", { id: `detection-${index}` });
    row.setAttribute("role", "option");
    row.dataset.index = String(index);
    const cells = [element("span", { className: "name" }, item.label), element("span", { className: "muted" }, size)];
    row.append(swatch(item.class_id), ...cells, element("span", { className: "score" }, score));
    return row;
  }

  show(items) {
    const shown = new Set(items);
    this.shown = items.filter((item) => this.rows.has(item));
    for (const [item, row] of this.rows) row.hidden = !shown.has(item);
  }

  select(item) {
    this.rows.get(this.selected)?.setAttribute("aria-selected", "false");
    this.selected = item;
    const row = this.rows.get(item);
    if (!row) {
      this.list.removeAttribute("aria-activedescendant");
      return;
    }
    row.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", row.id);
    const { offsetTop: top, offsetHeight: height } = row; // not scrollIntoView, which would move the page too
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    const below = top + height - this.list.clientHeight;
    if (below > this.list.scrollTop) this.list.scrollTop = below;
  }

  onKey(event) {
    const at = this.shown.indexOf(this.selected);
    const last = this.shown.length - 1;
    const targets = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last };
    if (event.key in targets && last >= 0) {
      event.preventDefault();
      this.onSelect(this.shown[targets[event.key]]);
    }
    if (event.key === "Enter" && at >= 0) this.onOpen(this.selected);
  }
}
