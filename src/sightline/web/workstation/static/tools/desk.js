// @ts-check
/** What a reader works on: the marks and answers of one read, the tool in hand, and each act as an operation. */
import { bodyOf, Fold } from "../marks/fold.js";
import { bounds, broughtInto, moved } from "../marks/geometry.js";
import { drawMark, handlesOf } from "../picture/paint.js";
import { box } from "./box.js";
import { brush } from "./brush.js";
import { polygon } from "./polygon.js";
import { ruler } from "./ruler.js";
import { scribble } from "./scribble.js";
import { isSound, reshaped, select } from "./select.js";

/** @typedef {import("../marks/fold.js").Op} Op */

const DRAWS = new Set(["scribble", "box", "polygon", "brush", "eraser"]);

export class Desk extends EventTarget {
  /**
   * @param {any} read as the server gave it
   * @param {{sync: any, clock: any, outbox: any, client: string, readOnly: boolean, ops: Op[]}} with_
   */
  constructor(read, with_) {
    super();
    this.read = read;
    this.task = read.task;
    this.sync = with_.sync;
    this.clock = with_.clock;
    this.outbox = with_.outbox;
    this.client = with_.client;
    this.locked = with_.readOnly;
    this.fold = Fold.of(with_.ops);
    this.n = 0;
    this.readyAt = performance.now();
    this.role = this.task.roles[0] || "focus";
    /** class of new marks; null: of all classes @type {string | null} */
    this.markClass = null;
    this.strokeWidth = 6;
    this.brushRadius = 12;
    this.touch = false;
    this.hidden = false;
    this.panning = false;
    /** @type {string | null} */
    this.selectedId = null;
    this.corner = -1;
    /** @type {any[]} */
    this.views = [];
    /** @type {any} */
    this.active = null;
    /** proposals not decided yet are drawn too @type {any[]} */
    this.proposals = read.proposals || [];
    /** @type {{[name: string]: any}} */
    this.tools = {
      scribble: scribble(this), box: box(this), polygon: polygon(this), brush: brush(this, false), eraser: brush(this, true),
      select: select(this), ruler: ruler(this), window: { name: "window", cursor: "window", down() {}, move() {}, up() {}, cancel() {} },
    };
    this.toolName = this.allowed("scribble") ? "scribble" : this.task.tools.find((/** @type {string} */ name) => this.allowed(name)) || "select";
    /** the pen that arrows move @type {any} */
    this.cursor = null;
  }

  readOnly() {
    return this.locked || this.fold.submitted || Boolean(this.read.read_only);
  }

  /** @param {string} name */
  allowed(name) {
    if (!DRAWS.has(name)) return true;
    if (this.read.study.images.every((/** @type {any} */ image) => image.kind === "volume") && name !== "box") return false;
    return this.task.tools.includes(name === "eraser" ? "brush" : name);
  }

  get tool() {
    return this.tools[this.toolName];
  }

  changed() {
    for (const view of this.views) view.redraw();
    this.dispatchEvent(new Event("change"));
  }

  /** A word to the reader. @param {string} key @param {any} [values] */
  tell(key, values = {}) {
    this.dispatchEvent(new CustomEvent("tell", { detail: { key, values } }));
  }

  /** @param {string} text */
  tellText(text) {
    this.dispatchEvent(new CustomEvent("tell", { detail: { text } }));
  }

  /**
   * Make an operation: on the screen at once, then on the disk, then to the server.
   * @param {string} kind
   * @param {string | null} image
   * @param {any} body
   * @returns {Promise<void>} when it lies on this computer's disk
   */
  make(kind, image, body) {
    if (this.locked || (this.readOnly() && kind !== "shown")) return Promise.resolve();
    this.n += 1;
    /** @type {Op} */
    const op = { id: crypto.randomUUID(), client: this.client, n: this.n, kind, image, body, at_ms: Date.now(), mono_ms: performance.now() };
    this.fold.apply(op);
    if (this.selectedId && this.fold.marks.get(this.selectedId)?.removed !== false) this.selectedId = null;
    const kept = this.sync.keep(this.read.id, op);
    this.changed();
    return kept;
  }

  /** @param {any} view @param {any} flat kind and geometry as drawn on the view */
  addMark(view, flat) {
    const shape = view.plane ? view.volume.deepen(view.plane, view.index, flat) : flat;
    const mark = { id: crypto.randomUUID(), role: this.role, label: this.markClass, name: "", source: "drawn", ...shape };
    if (!isSound(mark)) return;
    this.clock?.firstMark();
    this.make("add", view.image.key, { mark });
    this.select(mark.id);
  }

  /** @param {any} view @param {string} id @param {any} set */
  changeMark(view, id, set) {
    const mark = this.fold.marks.get(id);
    if (!mark || mark.removed) return;
    const whole = view?.plane && set.start ? this.geometryIn(view, mark, set) : set;
    this.make("change", mark.image, { mark: id, set: mark.source === "accepted" ? { ...whole, source: "edited" } : whole });
  }

  /** @param {any} view @param {any} mark @param {any} set */
  geometryIn(view, mark, set) {
    const { start, stop } = view.volume.deepen(view.plane, view.index, { kind: "box", ...set }, mark);
    return { start, stop };
  }

  /** Marks as they are seen in a view. @param {any} view @returns {any[]} */
  marksOf(view) {
    const live = this.fold.live(view.image.key);
    return view.plane ? live.map((mark) => view.volume.cut(mark, view.plane, view.index)).filter(Boolean) : live;
  }

  selected() {
    const mark = this.selectedId ? this.fold.marks.get(this.selectedId) : null;
    return mark && !mark.removed ? mark : null;
  }

  /** @param {string | null} id @param {number} [corner] */
  select(id, corner = -1) {
    this.selectedId = id;
    this.corner = corner;
    this.changed();
  }

  /** @param {string} name */
  takeTool(name) {
    if (!this.allowed(name)) { this.tell("tool.not_here"); return; }
    if (this.toolName !== name) {
      this.tool?.cancel?.(this.active);
      this.tool?.leave?.();
    }
    this.toolName = name;
    this.changed();
  }

  undo() {
    if (this.tool?.busy?.()) { this.tool.cancel(this.active); return; }
    const draft = this.fold.undo();
    if (draft) this.make(draft.kind, draft.image, draft.body);
    else this.tell("mark.nothing_to_undo");
  }

  redo() {
    const draft = this.fold.redo();
    if (draft) this.make(draft.kind, draft.image, draft.body);
    else this.tell("mark.nothing_to_redo");
  }

  /** @param {string} kind @param {any} value */
  answer(kind, value) {
    if (JSON.stringify(/** @type {any} */ (this.fold.answers)[kind]) === JSON.stringify(value)) return;
    this.make(kind, null, bodyOf(kind, value));
  }

  /** @param {string} id */
  remove(id) {
    const mark = this.fold.marks.get(id);
    if (mark && !mark.removed) this.make("remove", mark.image, { mark: id });
  }

  /** @param {string} id */
  restore(id) {
    const mark = this.fold.marks.get(id);
    if (!mark?.removed) return;
    this.make("restore", mark.image, { mark: id });
    this.select(id);
  }

  /** The selected mark, one view further; then it can be moved. */
  copy() {
    const mark = this.selected(), images = this.read.study.images.filter((/** @type {any} */ image) => image.kind !== "volume");
    if (!mark) { this.tell("mark.select_first"); return; }
    const from = images.findIndex((/** @type {any} */ image) => image.key === mark.image);
    if (from < 0 || images.length < 2) { this.tell("mark.no_other_view"); return; }
    const order = this.read.hanging?.order || images.map((/** @type {any} */ image) => image.key);
    const key = order[(order.indexOf(mark.image) + 1) % order.length];
    const view = this.views.find((one) => one.image.key === key);
    const target = view?.read || images.find((/** @type {any} */ image) => image.key === key);
    if (!target.rows) { this.tell("mark.no_other_view"); return; }
    const copy = {
      id: crypto.randomUUID(), kind: mark.kind, role: mark.role, label: mark.label, name: mark.name || "", strokes: [], source: "copied",
      from: mark.id, ...broughtInto(mark, target.rows, target.columns),
    };
    this.make("copy", key, { mark: copy, from: mark.id });
    if (view) this.dispatchEvent(new CustomEvent("activate", { detail: view }));
    this.selectedId = copy.id;
    this.takeTool("select");
  }

  /** Another kind of mark out of one, where that needs no drawing. @param {any} mark @param {string} kind */
  turnInto(mark, kind) {
    const [r0, c0, r1, c1] = bounds(mark);
    const shape = kind === "box" ? { start: [r0, c0], stop: [r1, c1] } : { parts: [[[r0, c0], [r0, c1], [r1, c1], [r1, c0]]] };
    const turned = { kind, ...shape, strokes: [] };
    if (isSound({ ...mark, ...turned })) this.make("change", mark.image, { mark: mark.id, set: { ...turned, source: "converted" } });
  }

  /** @param {number} dr source pixels @param {number} dc */
  nudge(dr, dc) {
    const mark = this.selected();
    if (!mark) return;
    const view = this.active, seen = view && this.marksOf(view).find((one) => one.id === mark.id);
    if (!seen) return;
    const handle = this.corner >= 0 ? handlesOf(seen)[this.corner] : null;
    const set = handle ? reshaped(seen, this.corner, [handle[0] + dr, handle[1] + dc]) : moved(seen, dr, dc);
    if (isSound({ ...seen, ...set })) this.changeMark(view, mark.id, set);
  }

  nextCorner() {
    const mark = this.selected();
    if (!mark) return;
    const n = handlesOf(mark).length;
    this.corner = n ? (this.corner + 1) % n : -1;
    this.changed();
  }

  removeCorner() {
    const mark = this.selected();
    if (mark?.kind !== "polygon" || this.corner < 0) return;
    let i = this.corner;
    const parts = mark.parts.map((/** @type {any[]} */ ring) => ring.slice());
    for (const [k, ring] of parts.entries()) {
      if (i < ring.length) {
        if (ring.length > 3) ring.splice(i, 1);
        else parts.splice(k, 1);
        break;
      }
      i -= ring.length;
    }
    this.corner = -1;
    if (parts.length) this.changeMark(null, mark.id, { parts });
    else this.remove(mark.id);
  }

  /** @param {number} step */
  cycle(step) {
    const marks = this.active ? this.marksOf(this.active) : [];
    const at = marks.findIndex((mark) => mark.id === this.selectedId);
    const next = at < 0 ? (step > 0 ? 0 : marks.length - 1) : at + step;
    if (next < 0 || next >= marks.length) {
      // past the last one the key is the browser's again: nobody is held in the picture
      if (at >= 0) this.select(null);
      return false;
    }
    this.select(marks[next].id);
    return true;
  }

  /** @param {string} role */
  setRole(role) {
    this.role = role;
    const mark = this.toolName === "select" ? this.selected() : null;
    if (mark && mark.role !== role) this.changeMark(null, mark.id, { role });
    else this.changed();
  }

  /** A class by its number: of the selected mark with the select tool in hand, else of the study. @param {number} n from 0 */
  takeClass(n) {
    const label = this.task.classes[n];
    if (label === undefined) return;
    const mark = this.toolName === "select" || !this.task.ask.label ? this.selected() : null;
    if (mark) this.changeMark(null, mark.id, { label: mark.label === label ? null : label });
    else if (this.task.ask.label) this.answer("label", this.fold.answers.label === label ? null : label);
    else {
      this.markClass = this.markClass === label ? null : label;
      this.changed();
    }
  }

  /** Proposals that nobody has decided on. */
  openProposals() {
    return this.proposals.filter((/** @type {any} */ one) => !this.fold.proposals[one.id]);
  }

  /** @param {any} proposal */
  accept(proposal) {
    const { id: _, image: __, removed: ___, ...shape } = proposal.mark;
    const mark = { role: this.role, label: null, ...shape, id: crypto.randomUUID(), source: "accepted", from: proposal.id };
    this.clock?.firstMark();
    this.make("accept", proposal.image, { proposal: proposal.id, mark });
    this.select(mark.id);
  }

  /** @param {any} proposal */
  reject(proposal) {
    this.make("reject", proposal.image, { proposal: proposal.id });
  }

  /** What is missing before this can be submitted; the same rule as the server's. @returns {string | null} */
  missing() {
    const { answers } = this.fold, unusable = answers.quality.length > 0;
    if (unusable) return null;
    if (this.task.ask.label && answers.label === null) return "label";
    if (this.task.ask.confidence && answers.confidence === null) return "confidence";
    if (this.task.tools.length && !answers.nothing && !this.fold.live().length) return "nothing";
    return null;
  }

  // what a view asks of whoever holds its pointer

  drag() {
    return this.panning ? "pan" : this.toolName === "window" ? "window" : "tool";
  }

  touchDraws() {
    return this.touch;
  }

  down(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
    this.cursor = null;
    if (DRAWS.has(this.toolName) && (this.readOnly() || view.throughNetwork || !view.read)) { this.tell(view.throughNetwork ? "tool.not_on_network" : "tool.read_only"); return; }
    if (view.plane && DRAWS.has(this.toolName) && this.toolName !== "box") { this.tell("tool.not_on_volume"); return; }
    if (DRAWS.has(this.toolName) && !this.allowed(this.toolName)) { this.tell("tool.not_here"); return; }
    this.tool.down(view, event, p);
  }

  move(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {any[]} */ many) {
    this.tool.move(view, event, many);
  }

  up(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
    this.tool.up(view, event, p);
  }

  cancel(/** @type {any} */ view) {
    this.tool.cancel(view);
  }

  hover(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
    if (!view.throughNetwork) this.tool.hover?.(view, event, p);
  }

  wheel(/** @type {any} */ view, /** @type {WheelEvent} */ event) {
    if (view.plane && !event.ctrlKey) {
      this.dispatchEvent(new CustomEvent("slice", { detail: { view, step: Math.sign(event.deltaY) } }));
      return true;
    }
    if (event.shiftKey && (this.toolName === "brush" || this.toolName === "eraser")) {
      this.widen(event.deltaY + event.deltaX < 0 ? 1 : -1);
      return true;
    }
    return false;
  }

  /** @param {number} step */
  widen(step) {
    const grown = (/** @type {number} */ v) => Math.max(1, Math.min(200, Math.round(step > 0 ? Math.max(v + 1, v * 1.25) : Math.min(v - 1, v / 1.25))));
    if (this.toolName === "brush" || this.toolName === "eraser") this.brushRadius = grown(this.brushRadius);
    else this.strokeWidth = grown(this.strokeWidth);
    this.changed();
  }

  penDown() {
    this.clock?.add("pen_down");
  }

  penUp() {
    this.clock?.add("pen_up");
  }

  /** @param {any} draft */
  keepDraft(draft) {
    this.outbox?.draft(this.read.id, draft).catch(() => {});
  }

  // the pen on the keyboard: arrows move it, the same key sets it down and lifts it

  keyPen() {
    const view = this.active;
    if (!view?.read || view.throughNetwork) return;
    const { width, height } = view.size();
    if (this.cursor?.view !== view) {
      this.cursor = { view, p: view.toSource(width / 2, height / 2), down: false };
      this.select(null);
      this.dispatchEvent(new CustomEvent("key-pen"));
      return;
    }
    const event = this.keyEvent();
    if (!this.cursor.down) {
      const { p } = this.cursor, cursor = this.cursor;
      this.down(view, event, p);
      this.cursor = cursor;
      cursor.down = this.toolName !== "polygon" && Boolean(this.tool.busy?.());
    } else {
      const cursor = this.cursor;
      this.up(view, event, cursor.p);
      cursor.down = false;
      this.cursor = cursor;
    }
    view.redraw();
  }

  /** @returns {any} */
  keyEvent() {
    return { timeStamp: performance.now(), pressure: 0.5, pointerType: "keys", shiftKey: false };
  }

  /** @param {number} dx CSS pixels @param {number} dy @returns {boolean} there was a pen to move */
  moveCursor(dx, dy) {
    if (!this.cursor) return false;
    const { view, p } = this.cursor;
    const [x, y] = view.toScreen(p);
    const { width, height } = view.size();
    this.cursor.p = view.toSource(Math.max(0, Math.min(width, x + dx)), Math.max(0, Math.min(height, y + dy)));
    const event = this.keyEvent();
    if (this.cursor.down) this.tool.move(view, event, [{ event, p: this.cursor.p }]);
    else this.tool.hover?.(view, event, this.cursor.p);
    view.redraw();
    return true;
  }

  /** Esc. */
  letGo() {
    if (this.active?.cancel?.()) return;
    if (this.tool.busy?.()) this.tool.cancel(this.active);
    else if (this.cursor) this.cursor = null;
    else if (this.selectedId) this.select(null);
    else this.tool.cancel?.(this.active);
    this.changed();
  }

  /** Ink of a view. @param {CanvasRenderingContext2D} context @param {any} view @param {any} seen the view, or what maps marks into what it shows */
  paint(context, view, seen = view) {
    if (this.hidden) return;
    const tool = this.tool;
    for (const proposal of this.openProposals()) {
      if (proposal.image === view.image.key && !view.plane) drawMark(context, seen, proposal.mark, { colour: "#ffd54a", thin: true, name: `${proposal.score === undefined || proposal.score === null ? "?" : Number(proposal.score).toFixed(2)}` });
    }
    for (const mark of this.marksOf(view)) {
      if (tool?.hides?.(mark)) continue;
      drawMark(context, seen, mark, { selected: mark.id === this.selectedId && seen === view, corner: this.corner, name: mark.label || mark.name || "" });
    }
    if (seen !== view) return;
    const shown = tool?.shown?.();
    if (shown && this.marksOf(view).some((mark) => mark.id === shown.id)) drawMark(context, view, shown, { selected: true, corner: this.corner });
    tool?.paint?.(context, view);
    if (this.cursor?.view === view) drawCross(context, view.toScreen(this.cursor.p), this.cursor.down);
  }

  /** The linked cross of a volume. @param {any} view @param {[number, number]} p */
  moveCross(view, p) {
    this.centreCross(view.volume, view.volume.toVoxel(view.plane, p, view.index + 0.5));
  }

  /** The cross in a place of all three axes. @param {any} volume @param {number[]} voxel */
  centreCross(volume, voxel) {
    volume.moveTo(voxel);
    this.dispatchEvent(new CustomEvent("cross", { detail: volume }));
  }
}

/** @param {CanvasRenderingContext2D} context @param {[number, number]} at @param {boolean} down */
function drawCross(context, [x, y], down) {
  for (const [style, width] of [["rgba(0,0,0,0.9)", 4], [down ? "#8cff3f" : "#ffffff", 1.6]]) {
    context.strokeStyle = /** @type {string} */ (style);
    context.lineWidth = /** @type {number} */ (width);
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * 4, y + dy * 4);
      context.lineTo(x + dx * 15, y + dy * 15);
    }
    context.stroke();
  }
}
