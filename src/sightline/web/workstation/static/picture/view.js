// @ts-check
/** One picture in one frame: window, zoom, pan, turn; and ink over it. Marks stay in source pixels whatever is shown. */
import { el } from "../page/dom.js";
import { greyTable, halved, paintPart, percentiles } from "./grey.js";

/** @typedef {import("./grey.js").Raster} Raster @typedef {import("./grey.js").Window} Window */
/** @typedef {[number, number, number, number, number, number]} Affine (row, column) to (x, y): x = a r + b c + e */

/** @type {boolean} a pen was used in this session: touch pans and does not draw */
let penSeen = false;

const MARGIN = 96;

export class View extends EventTarget {
  /** @param {{label: string, turn?: boolean}} options */
  constructor(options) {
    super();
    this.picture = el("canvas", { class: "picture" });
    this.ink = el("canvas", { class: "ink" });
    this.corners = { nw: el("div", { class: "corner nw" }), ne: el("div", { class: "corner ne" }), sw: el("div", { class: "corner sw" }), se: el("div", { class: "corner se" }) };
    this.message = el("div", { class: "view-message", hidden: true });
    this.node = el("div", { class: "view", tabindex: 0, role: "group", "aria-label": options.label }, this.picture, this.ink, Object.values(this.corners), this.message);
    /** @type {Raster | null} */
    this.read = null;
    /** @type {{raster: Raster, scale: any, start: Window} | null} */
    this.stored = null;
    /** @type {Raster[]} */
    this.levels = [];
    /** @type {Window | null} null: exactly as it was read */
    this.window = null;
    this.inverted = false;
    this.turn = 0;
    this.zoom = 1;
    this.centre = [0, 0];
    this.fitted = true;
    /** what reset gives: null is the picture as it was read; slices of CTs have no such thing @type {Window | null} */
    this.plain = null;
    /** height of a pixel over its width */
    this.aspect = 1;
    /** @type {(context: CanvasRenderingContext2D, view: View) => void} */
    this.paint = () => {};
    /** what may take the pointer before panning and windowing do @type {any} */
    this.host = null;
    this.tile = { canvas: document.createElement("canvas"), key: "", part: [0, 0, 0, 0], level: 0 };
    this.frame = 0;
    this.pointers = new Map();
    /** @type {any} */
    this.drag = null;
    /** the last press, and how many in a row: pointer events do not count clicks */
    this.press = { x: 0, y: 0, at: -Infinity, count: 0 };
    /** @type {{key: string, table: Uint32Array}} */
    this.tables = { key: "", table: new Uint32Array(0) };
    this.drawn = 0;
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(this.node);
    this.ended = new AbortController();
    this.watchRatio();
    this.listen();
  }

  /** @param {Raster} raster @param {number} [aspect] */
  show(raster, aspect = raster.aspect || 1) {
    const same = this.read && this.read.rows === raster.rows && this.read.columns === raster.columns && this.aspect === aspect;
    this.read = raster;
    this.aspect = aspect;
    this.levels = [raster];
    this.tile.key = "";
    this.say("");
    if (!same) this.fit();
    else this.redraw();
  }

  /** The numbers before the window, for windows of their own. @param {Raster} raster @param {any} scale @param {Window} start */
  setStored(raster, scale, start) {
    this.stored = { raster, scale, start };
  }

  /** @param {string} words */
  say(words) {
    this.message.textContent = words;
    this.message.hidden = !words;
  }

  get raster() {
    return this.window && this.stored ? this.stored.raster : this.read;
  }

  /** The window in force, also where the picture is as read. @returns {Window} */
  currentWindow() {
    if (this.window) return this.window;
    return this.stored ? this.stored.start : { centre: 32767.5, width: 65535, function: "linear_exact", invert: false };
  }

  /** @param {Window | null} window */
  setWindow(window) {
    const before = this.raster;
    this.window = window;
    if (this.raster !== before && this.raster) { this.levels = [this.raster]; }
    this.redraw();
    this.dispatchEvent(new Event("window"));
  }

  /** How much of a window is one step of the numbers under the cursor: pictures of 8 bits are shown on the scale of 16. */
  unit() {
    return !this.stored && this.read?.values.BYTES_PER_ELEMENT === 1 ? 257 : 1;
  }

  /** From the darkest to the brightest 1 %. */
  autoWindow() {
    const raster = this.stored?.raster || this.read;
    if (!raster) return;
    const [low, high] = percentiles(raster, 0.01, 0.99);
    this.setWindow(this.spanning(low, high));
  }

  fullWindow() {
    const raster = this.stored?.raster || this.read;
    if (!raster) return;
    const [low, high] = percentiles(raster, 0, 1);
    this.setWindow(this.spanning(low, high));
  }

  /** @param {number} low numbers as they lie in the array @param {number} high @returns {Window} */
  spanning(low, high) {
    const scale = this.stored?.scale;
    const factor = this.unit();
    const ends = [low, high].map((v) => (scale ? v * scale.slope + scale.intercept : v * factor)).sort((a, b) => a - b);
    return { centre: (ends[0] + ends[1]) / 2, width: Math.max(ends[1] - ends[0], 1), function: "linear_exact", invert: false };
  }

  reset() {
    this.inverted = false;
    this.turn = 0;
    this.setWindow(this.plain);
    this.fit();
  }

  fit() {
    this.fitted = true;
    const box = this.size();
    if (!this.read || !box.width) return;
    const odd = this.turn % 2 === 1;
    const h = this.read.rows * this.aspect, w = this.read.columns;
    this.zoom = Math.min(box.width / (odd ? h : w), box.height / (odd ? w : h));
    this.centre = [this.read.rows / 2, this.read.columns / 2];
    this.redraw();
    this.dispatchEvent(new Event("zoom"));
  }

  /** One pixel of the picture on one of the screen. */
  oneToOne() {
    this.fitted = false;
    this.zoom = 1 / (window.devicePixelRatio || 1);
    this.redraw();
    this.dispatchEvent(new Event("zoom"));
  }

  rotate() {
    this.turn = (this.turn + 1) % 4;
    if (this.fitted) this.fit();
    else this.redraw();
  }

  size() {
    return { width: this.node.clientWidth, height: this.node.clientHeight };
  }

  resize() {
    this.match(this.picture);
    this.match(this.ink);
    if (this.fitted) this.fit();
    this.redraw(true);
  }

  /**
   * As many pixels as the frame has on this screen: ink on any other would lie elsewhere than the pointer.
   * @param {HTMLCanvasElement} canvas
   */
  match(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.size();
    const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  }

  /** On a screen of other pixels the frame keeps its size, and no observer tells. */
  watchRatio() {
    const query = window.matchMedia(`(resolution: ${window.devicePixelRatio || 1}dppx)`);
    query.addEventListener("change", () => { this.watchRatio(); this.resize(); }, { once: true, signal: this.ended.signal });
  }

  /** (row, column) to CSS pixels of the frame. @returns {Affine} */
  affine() {
    const { width, height } = this.size();
    const z = this.zoom, zr = this.zoom * this.aspect;
    const [a, b, c, d] = [[0, z, zr, 0], [-zr, 0, 0, z], [0, -z, -zr, 0], [zr, 0, 0, -z]][this.turn];
    let e = width / 2 - a * this.centre[0] - b * this.centre[1], f = height / 2 - c * this.centre[0] - d * this.centre[1];
    const ratio = window.devicePixelRatio || 1;
    // pixels of the screen, so that 1:1 is exact
    e = Math.round(e * ratio) / ratio;
    f = Math.round(f * ratio) / ratio;
    return [a, b, c, d, e, f];
  }

  /** @param {number[]} p row, column @returns {[number, number]} x, y in CSS pixels */
  toScreen(p) {
    const [a, b, c, d, e, f] = this.affine();
    return [a * p[0] + b * p[1] + e, c * p[0] + d * p[1] + f];
  }

  /** @param {number} x @param {number} y @returns {[number, number]} row, column */
  toSource(x, y) {
    const [a, b, c, d, e, f] = this.affine();
    const det = a * d - b * c;
    return [(d * (x - e) - b * (y - f)) / det, (a * (y - f) - c * (x - e)) / det];
  }

  /** @param {{clientX: number, clientY: number}} event @returns {[number, number]} */
  pointOf(event) {
    const box = this.node.getBoundingClientRect();
    return this.toSource(event.clientX - box.left, event.clientY - box.top);
  }

  /** @param {number} factor @param {number} [x] CSS pixels that stay where they are @param {number} [y] */
  zoomBy(factor, x, y) {
    const { width, height } = this.size();
    const at = [x ?? width / 2, y ?? height / 2];
    const p = this.toSource(at[0], at[1]);
    this.fitted = false;
    this.zoom = Math.max(0.01, Math.min(64, this.zoom * factor));
    const q = this.toSource(at[0], at[1]);
    this.centre = [this.centre[0] + p[0] - q[0], this.centre[1] + p[1] - q[1]];
    this.redraw();
    this.dispatchEvent(new Event("zoom"));
  }

  /** @param {number} dx CSS pixels @param {number} dy */
  panBy(dx, dy) {
    const p = this.toSource(0, 0), q = this.toSource(dx, dy);
    this.fitted = false;
    this.centre = [this.centre[0] + p[0] - q[0], this.centre[1] + p[1] - q[1]];
    this.redraw();
    this.dispatchEvent(new Event("zoom"));
  }

  /** What a later visit takes up. */
  state() {
    return { window: this.window, inverted: this.inverted, turn: this.turn, zoom: this.zoom, centre: this.centre, fitted: this.fitted };
  }

  /** @param {any} state */
  take(state) {
    if (!state || typeof state !== "object") return;
    this.inverted = Boolean(state.inverted);
    this.turn = [0, 1, 2, 3].includes(state.turn) ? state.turn : 0;
    const w = state.window;
    if (w && Number.isFinite(w.centre) && w.width > 0) this.setWindow(w);
    if (!state.fitted && state.zoom > 0 && Array.isArray(state.centre)) {
      this.fitted = false;
      this.zoom = state.zoom;
      this.centre = [...state.centre];
      this.redraw();
    } else this.fit();
  }

  /** Draw with the next frame; at once where `now`. @param {boolean} [now] */
  redraw(now = false) {
    if (now) { this.draw(); return; }
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  table() {
    const raster = /** @type {Raster} */ (this.raster);
    const key = JSON.stringify([this.window, this.inverted, raster === this.read, raster.rows, raster.columns]);
    if (this.tables.key !== key) this.tables = { key, table: greyTable(raster, this.window, this.window && this.stored ? this.stored.scale : null, this.inverted) };
    return this.tables;
  }

  draw() {
    this.drawPicture();
    this.drawInk();
  }

  drawPicture() {
    this.match(this.picture);
    const context = /** @type {CanvasRenderingContext2D} */ (this.picture.getContext("2d", { alpha: false }));
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.picture.width, this.picture.height);
    const raster = this.raster;
    const { width, height } = this.size();
    if (!raster || !width || !height) return;
    const wanted = Math.max(0, Math.floor(Math.log2(1 / (this.zoom * ratio * Math.min(1, this.aspect))) + 1e-9));
    const most = raster.colour ? 6 : 8;
    while (this.levels.length <= Math.min(wanted, most) && Math.min(this.levels.at(-1)?.rows || 0, this.levels.at(-1)?.columns || 0) > 64) this.levels.push(halved(/** @type {Raster} */ (this.levels.at(-1))));
    const level = Math.min(wanted, this.levels.length - 1), shown = this.levels[level];
    const corners = [this.toSource(0, 0), this.toSource(width, 0), this.toSource(0, height), this.toSource(width, height)];
    // sides of a level's pixels in source pixels: halves drop an odd row
    const sr = raster.rows / shown.rows, sc = raster.columns / shown.columns;
    const rows = corners.map((p) => p[0] / sr), columns = corners.map((p) => p[1] / sc);
    const bound = (/** @type {number} */ v, /** @type {number} */ top) => Math.max(0, Math.min(top, v));
    const need = [
      bound(Math.floor(Math.min(...rows)), shown.rows), bound(Math.floor(Math.min(...columns)), shown.columns),
      bound(Math.ceil(Math.max(...rows)), shown.rows), bound(Math.ceil(Math.max(...columns)), shown.columns),
    ];
    if (need[2] <= need[0] || need[3] <= need[1]) return;
    const { key, table } = this.table();
    const tile = this.tile;
    const held = tile.key === key && tile.level === level && tile.part[0] <= need[0] && tile.part[1] <= need[1] && tile.part[2] >= need[2] && tile.part[3] >= need[3];
    if (!held) {
      // while the window moves only what is seen is worked out; else a margin for panning as well
      const edge = tile.key === key ? MARGIN : 0;
      tile.part = [Math.max(0, need[0] - edge), Math.max(0, need[1] - edge), Math.min(shown.rows, need[2] + edge), Math.min(shown.columns, need[3] + edge)];
      tile.level = level;
      tile.key = key;
      const h = tile.part[2] - tile.part[0], w = tile.part[3] - tile.part[1];
      if (tile.canvas.width !== w || tile.canvas.height !== h) { tile.canvas.width = w; tile.canvas.height = h; }
      const image = new ImageData(w, h);
      paintPart(shown, table, tile.part, new Uint32Array(image.data.buffer));
      /** @type {CanvasRenderingContext2D} */ (tile.canvas.getContext("2d")).putImageData(image, 0, 0);
    }
    const [a, b, c, d, e, f] = this.affine().map((v) => v * ratio);
    context.setTransform(b * sc, d * sc, a * sr, c * sr, e, f);
    const scale = this.zoom * ratio * sc;
    context.imageSmoothingEnabled = Math.abs(scale - 1) > 1e-9 && scale < 6;
    context.imageSmoothingQuality = "low";
    context.drawImage(tile.canvas, tile.part[1], tile.part[0]);
    this.drawn += 1;
    this.dispatchEvent(new Event("drawn"));
  }

  drawInk() {
    this.match(this.ink);
    const context = /** @type {CanvasRenderingContext2D} */ (this.ink.getContext("2d"));
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.ink.width, this.ink.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paint(context, this);
  }

  /** The number under a point, as the file has it where that is known. @param {number[]} p @returns {string} */
  valueAt(p) {
    const r = Math.floor(p[0]), c = Math.floor(p[1]);
    const raster = this.stored?.raster || this.read;
    if (!raster || r < 0 || c < 0 || r >= raster.rows || c >= raster.columns) return "";
    const i = r * raster.columns + c;
    if (raster.colour) return [0, 1, 2].map((k) => raster.values[i * 3 + k]).join(" ");
    const scale = this.stored?.scale;
    const value = scale ? raster.values[i] * scale.slope + scale.intercept : raster.values[i];
    return Number.isInteger(value) ? String(value) : value.toFixed(2);
  }

  listen() {
    const node = this.node;
    node.addEventListener("contextmenu", (/** @type {Event} */ event) => event.preventDefault());
    node.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      if (this.host?.wheel?.(this, event)) return;
      const box = node.getBoundingClientRect();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    node.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.down(event));
    node.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.move(event));
    node.addEventListener("pointerup", (/** @type {PointerEvent} */ event) => this.up(event, false));
    node.addEventListener("pointercancel", (/** @type {PointerEvent} */ event) => this.up(event, true));
    node.addEventListener("lostpointercapture", (/** @type {PointerEvent} */ event) => { if (this.pointers.has(event.pointerId)) this.up(event, true); });
    node.addEventListener("pointerleave", () => { if (!this.drag) this.dispatchEvent(new CustomEvent("hover", { detail: null })); });
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.pointerType === "pen") penSeen = true;
    node_focus(this.node);
    this.dispatchEvent(new Event("active"));
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    try { this.node.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
    if (this.pointers.size === 2 && event.pointerType === "touch") {
      this.cancel();
      this.drag = { kind: "pinch", before: this.spread() };
      return;
    }
    if (this.drag) {
      // another button during a stroke ends it; the tool stays alive
      if (event.button === 2) this.cancel();
      return;
    }
    const near = Math.hypot(event.clientX - this.press.x, event.clientY - this.press.y) < 6 && event.timeStamp - this.press.at < 400;
    this.press = { x: event.clientX, y: event.clientY, at: event.timeStamp, count: near ? this.press.count + 1 : 1 };
    const kind = event.button === 1 ? "pan" : event.button === 2 ? "window" : this.kindOf(event);
    this.drag = { kind, id: event.pointerId, x: event.clientX, y: event.clientY, start: this.currentWindow() };
    if (kind === "tool") this.host.down(this, event, this.pointOf(event));
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  kindOf(event) {
    const wanted = this.host?.drag?.() || "tool";
    if (event.pointerType === "touch" && penSeen && !this.host?.touchDraws?.()) return "pan";
    if (wanted === "tool" && !this.host?.down) return "pan";
    return wanted;
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const p = this.pointOf(event);
    this.dispatchEvent(new CustomEvent("hover", { detail: p }));
    const drag = this.drag;
    if (!drag) { this.host?.hover?.(this, event, p); return; }
    if (drag.kind === "pinch") { this.pinch(); return; }
    if (event.pointerId !== drag.id) return;
    // a right press during a left stroke comes as a move with more buttons
    if (drag.kind === "tool" && event.buttons & 2) { this.cancel(); return; }
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (drag.kind === "tool") {
      const many = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      this.host.move(this, event, (many.length ? many : [event]).map((one) => ({ event: one, p: this.pointOf(one) })));
    } else if (drag.kind === "pan") {
      this.panBy(dx, dy);
      drag.x = event.clientX;
      drag.y = event.clientY;
    } else if (drag.kind === "window") {
      const start = drag.start;
      this.setWindow({ ...start, width: Math.max(1, start.width * Math.exp(dx / 220)), centre: start.centre + (dy * Math.max(start.width, 1)) / 400 });
    }
  }

  /** @param {PointerEvent} event @param {boolean} lost */
  up(event, lost) {
    this.pointers.delete(event.pointerId);
    const drag = this.drag;
    if (!drag) return;
    if (drag.kind === "pinch") { if (this.pointers.size < 2) this.drag = null; return; }
    if (event.pointerId !== drag.id) return;
    this.drag = null;
    if (drag.kind === "tool") {
      if (lost) this.host.cancel(this);
      else this.host.up(this, event, this.pointOf(event));
    }
  }

  /** Esc, right click, a lost pointer: the stroke is gone, the tool stays. */
  cancel() {
    const drag = this.drag;
    this.drag = null;
    if (drag?.kind === "tool") this.host.cancel(this);
    return Boolean(drag);
  }

  spread() {
    const [a, b] = [...this.pointers.values()];
    return { d: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  }

  pinch() {
    if (this.pointers.size < 2) return;
    const now = this.spread(), before = this.drag.before;
    const box = this.node.getBoundingClientRect();
    this.panBy(now.x - before.x, now.y - before.y);
    if (before.d > 0) this.zoomBy(now.d / before.d, now.x - box.left, now.y - box.top);
    this.drag.before = now;
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.resizing.disconnect();
    this.ended.abort();
  }
}

/** The window of a file that states none: from its lowest to its highest number. @param {any} grey @returns {Window} */
export function fullRange(grey) {
  const ends = [grey.low, grey.high].map((v) => v * (grey.slope ?? 1) + (grey.intercept ?? 0));
  return { centre: (ends[0] + ends[1]) / 2, width: Math.max(1, Math.abs(ends[1] - ends[0])), function: "linear_exact", invert: false };
}

/** @param {HTMLElement} node */
function node_focus(node) {
  if (document.activeElement !== node) node.focus({ preventScroll: true });
}
