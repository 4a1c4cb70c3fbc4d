/** The heat of the picture at hand: which layer is chosen, fetched once each, coloured here. */

import { getHeat } from "./api.js";
import { colorTable, paintBar, paintHeat } from "./heat.js";
import { say } from "./messages.js";

const MEANINGS = {
  mixed: "What the class head and the box head see together.",
  class: "Where the class head sees an object.",
  bbox: "Where the box head sees an object's extent.",
  density: "Objects per cell; the sum over all cells is the estimated count.",
  mask: "The cells that count as hot.",
};

const byId = (id) => document.getElementById(id);

export class HeatLayers {
  /**
   * @param {(heat: object | null) => void} onHeat draws a layer, or none
   * @param {(error: Error, again: () => void) => void} onError
   */
  constructor({ onHeat, onError }) {
    Object.assign(this, { onHeat, onError });
    this.forget();
    for (const id of ["kinds", "heat-class", "colormap"]) byId(id).addEventListener("change", () => this.show());
  }

  /** Before a new picture: nothing of the last one may show. */
  forget() {
    this.imageId = null;
    this.fetched = new Map();
  }

  /** @param {AbortSignal} signal ends what is still being fetched when another picture comes */
  setPicture(imageId, signal) {
    Object.assign(this, { imageId, signal });
    return this.show();
  }

  offerClasses(names) {
    byId("heat-class").replaceChildren(new Option("any class", ""), ...names.map((name) => new Option(name, name)));
  }

  /** What is chosen now, as kind and class name. */
  choice() {
    const kind = document.querySelector("input[name=kind]:checked").value;
    return { kind, className: kind === "class" ? byId("heat-class").value : "" };
  }

  async show() {
    const { kind, className } = this.choice();
    byId("heat-options").hidden = !kind;
    byId("heat-class-field").hidden = kind !== "class";
    byId("heat-meaning").textContent = MEANINGS[kind] ?? "";
    if (!kind || !this.imageId) {
      this.onHeat(null);
      return;
    }
    const { imageId, fetched } = this;
    const name = `${kind}:${className}`;
    try {
      if (!fetched.has(name)) fetched.set(name, await getHeat(imageId, kind, className, this.signal));
    } catch (error) {
      if (error.name !== "AbortError") this.onError(error, () => this.show());
      return;
    }
    const now = this.choice();
    if (imageId === this.imageId && now.kind === kind && now.className === className) this.paint(fetched.get(name));
  }

  paint(layer) {
    const table = colorTable(byId("colormap").value);
    const size = { columns: layer.values[0].length, rows: layer.values.length };
    this.onHeat({ canvas: paintHeat(layer, table), affine: layer.affine, ...size });
    paintBar(byId("heat-bar"), table);
    byId("heat-top").textContent = `hot ${Number(layer.top.toPrecision(3))}`;
    say(`Showing ${layer.title}.`);
  }
}
