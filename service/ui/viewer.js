/** The canvas: picture, heat and boxes under one zoom, moved by mouse, fingers or keys. */

import { boxAt, drawBoxes } from "./boxes.js";
import { drawHeat } from "./heat.js";

const MARGIN = 16;
const MAX_SCALE = 40;
const STEP = 1.25;
const MOVED = 5; // a pointer that moves less is a click
const PIXELS_FROM = 3; // from this zoom on, pixels of the picture are shown as squares
const MOTION_MS = 220;

export class Viewer {
  /**
   * @param {(item: object | null) => void} onPick a box was clicked, or none
   * @param {(scale: number) => void} onZoom the zoom has changed
   */
  constructor(canvas, { onPick, onZoom }) {
    Object.assign(this, { canvas, onPick, onZoom });
    this.context = canvas.getContext("2d");
    this.clear();
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.onPointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.onPointerMove(event));
    canvas.addEventListener("pointerup", (event) => this.onPointerEnd(event));
    canvas.addEventListener("pointercancel", (event) => this.onPointerEnd(event));
    canvas.addEventListener("keydown", (event) => this.onKey(event));
  }

  clear() {
    this.picture = null;
    this.heat = null;
    this.items = [];
    this.selected = null;
    this.labels ??= true;
    this.opacity ??= 0.6;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
  }

  /** Show another picture, fitted; boxes and heat of the last one go. */
  setPicture(picture) {
    this.clear();
    this.picture = picture;
    this.resize();
  }

  /** Change what is drawn: any of items, selected, labels, heat, opacity, picture. */
  update(changes) {
    Object.assign(this, changes);
    this.redraw();
  }

  fit() {
    this.fitted = true;
    this.moveTo(this.fittedView());
  }

  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const scale = this.limit(this.view.scale * factor);
    const share = scale / this.view.scale;
    this.fitted = false;
    this.setView({ scale, x: x - (x - this.view.x) * share, y: y - (y - this.view.y) * share });
  }

  panBy(x, y) {
    this.fitted = false;
    this.setView({ ...this.view, x: this.view.x + x, y: this.view.y + y });
  }

  /** Bring a box to the middle, large enough to look at. */
  zoomTo({ box: [x1, y1, x2, y2] }) {
    const side = Math.max(x2 - x1, y2 - y1, 1);
    const quarter = Math.min(this.width, this.height) / 4 / side; // the box takes a quarter of the stage
    const scale = this.limit(Math.max(this.fittedView().scale, Math.min(8, quarter)));
    this.fitted = false;
    this.moveTo(this.centred((x1 + x2) / 2, (y1 + y2) / 2, scale));
  }

  /** Move only as far as a box needs to be seen. */
  reveal({ box: [x1, y1, x2, y2] }) {
    const { scale, x, y } = this.view;
    const isAcross = x1 * scale + x >= 0 && x2 * scale + x <= this.width;
    if (isAcross && y1 * scale + y >= 0 && y2 * scale + y <= this.height) return;
    this.fitted = false;
    this.moveTo(this.centred((x1 + x2) / 2, (y1 + y2) / 2, scale));
  }

  centred(x, y, scale) {
    return { scale, x: this.width / 2 - x * scale, y: this.height / 2 - y * scale };
  }

  fittedView() {
    const { width, height } = this.picture;
    const room = (side) => Math.max(1, side - 2 * MARGIN);
    const scale = Math.min(room(this.width) / width, room(this.height) / height, 8);
    return this.centred(width / 2, height / 2, scale);
  }

  limit(scale) {
    return Math.max(Math.min(this.fittedView().scale, 1) / 2, Math.min(MAX_SCALE, scale));
  }

  /** Glide to a view, so that one sees where it lies; at once where less motion is asked for. */
  moveTo(target) {
    const start = { ...this.view };
    const begun = performance.now();
    const motion = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : MOTION_MS;
    const glide = { step: null };
    this.glide = glide;
    const step = (now) => {
      if (this.glide !== glide) return; // another movement has begun
      const share = motion ? Math.min(1, Math.max(0, now - begun) / motion) : 1;
      const eased = 1 - (1 - share) ** 3;
      const between = (name) => start[name] + (target[name] - start[name]) * eased;
      this.view = { scale: between("scale"), x: between("x"), y: between("y") };
      this.redraw();
      if (share < 1) requestAnimationFrame(step);
    };
    step(begun);
  }

  /** Jump to a view; some of the picture always stays in sight. */
  setView({ scale, x, y }) {
    const { width, height } = this.picture;
    const keep = 40;
    this.glide = null;
    this.view = {
      scale,
      x: Math.max(keep - width * scale, Math.min(this.width - keep, x)),
      y: Math.max(keep - height * scale, Math.min(this.height - keep, y)),
    };
    this.redraw();
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.ratio = devicePixelRatio;
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    if (!this.picture || !this.width) return;
    if (this.fitted) this.view = this.fittedView();
    this.draw(); // at once: a canvas that changes its size is empty
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    if (!this.picture || !this.width) return;
    const { context, ratio, picture, view } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
    context.imageSmoothingEnabled = view.scale < PIXELS_FROM;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.bitmap, 0, 0, picture.width, picture.height);
    if (this.heat) drawHeat(context, this.heat, picture, this.opacity);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const { labels, selected, width, height } = this;
    drawBoxes(context, this.items, view, { line: 1.75, font: 12, labels, selected, width, height });
    this.onZoom(view.scale);
  }

  onWheel(event) {
    if (!this.picture) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.0016; // a pinch on a touchpad comes as a small wheel with ctrl
    const bounds = this.canvas.getBoundingClientRect();
    this.zoomBy(Math.exp(-event.deltaY * lines * speed), event.clientX - bounds.left, event.clientY - bounds.top);
  }

  onPointerDown(event) {
    if (!this.picture || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.travelled = this.pointers.size > 1 ? MOVED : 0; // a pinch is never a click
  }

  onPointerMove(event) {
    const before = this.pointers.get(event.pointerId);
    const now = this.place(event);
    if (!before) {
      this.canvas.classList.toggle("on-box", this.itemAt(now) !== null);
      return;
    }
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    this.travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (other) this.pinch(before, now, other);
    else if (this.travelled >= MOVED) this.panBy(now.x - before.x, now.y - before.y);
  }

  pinch(before, now, other) {
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    this.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.zoomBy(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  onPointerEnd(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size || this.travelled >= MOVED) return;
    if (event.type === "pointerup") this.onPick(this.itemAt(this.place(event), event.pointerType === "touch" ? 14 : 5));
  }

  onKey(event) {
    if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 200 : 50;
    const actions = {
      ArrowLeft: () => this.panBy(far, 0),
      ArrowRight: () => this.panBy(-far, 0),
      ArrowUp: () => this.panBy(0, far),
      ArrowDown: () => this.panBy(0, -far),
      "+": () => this.zoomBy(STEP),
      "=": () => this.zoomBy(STEP), // the same key without shift
      "-": () => this.zoomBy(1 / STEP),
      0: () => this.fit(),
      Escape: () => this.onPick(null),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  place(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  }

  itemAt({ x, y }, reach = 5) {
    const { scale } = this.view;
    return boxAt(this.items, (x - this.view.x) / scale, (y - this.view.y) / scale, reach / scale);
  }
}
