// @ts-check
/** Brush and eraser: a mask of the picture's own size. A stroke on a selected mask changes it; else it begins a new one. */
import { brushed, countPoints } from "../marks/geometry.js";
import { decode, encode } from "../marks/run_lengths.js";
import { INK, tinted } from "../picture/paint.js";

/** @param {any} desk @param {boolean} erase */
export function brush(desk, erase) {
  /** @type {any} */
  let held = null;
  /** @type {any} */
  let cursor = null;

  const target = (/** @type {any} */ view) => {
    const selected = desk.selected();
    if (selected?.kind === "mask" && selected.image === view.image.key) return selected;
    if (!erase) return null;
    return desk.fold.live(view.image.key).filter((/** @type {any} */ mark) => mark.kind === "mask").at(-1) || null;
  };

  const stroke = (/** @type {[number, number]} */ a, /** @type {[number, number]} */ b) => {
    const part = brushed(held.pixels, held.rows, held.columns, a, b, desk.brushRadius, erase ? 0 : 1);
    const t = held.touched;
    held.touched = [Math.min(t[0], part[0]), Math.min(t[1], part[1]), Math.max(t[2], part[2]), Math.max(t[3], part[3])];
    held.drawn = null;
  };

  return {
    name: erase ? "eraser" : "brush",
    cursor: "none",
    down(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
      const { rows, columns } = view.read;
      const onto = target(view);
      if (erase && !onto) { desk.tell("tool.nothing_to_erase"); return; }
      const pixels = onto ? decode(onto.counts, rows, columns) : new Uint8Array(rows * columns);
      held = { view, onto, pixels, rows, columns, at: p, touched: [rows, columns, 0, 0], begun: event.timeStamp, t0: Math.max(0, event.timeStamp - desk.readyAt), pointer: event.pointerType || "mouse", points: [[p[0], p[1], 0, event.pressure]] };
      desk.penDown();
      stroke(p, p);
      cursor = { view, p };
      view.drawInk();
    },
    move(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {{event: PointerEvent, p: [number, number]}[]} */ many) {
      if (!held) return;
      for (const { event, p } of many) {
        stroke(held.at, p);
        held.at = p;
        held.points.push([p[0], p[1], Math.max(0, event.timeStamp - held.begun), event.pressure]);
      }
      cursor = { view, p: held.at };
      view.drawInk();
    },
    up(/** @type {any} */ view) {
      if (!held) return;
      const { onto, pixels, rows, columns, pointer, t0, points } = held;
      held = null;
      desk.penUp();
      const image = view.image.key, any = pixels.includes(1);
      // many earlier strokes stay in their own operations alone
      const trace = { pointer, t0_ms: t0, points }, before = onto && countPoints(onto) < 5e4 ? onto.strokes || [] : [];
      if (onto && !any) desk.make("remove", image, { mark: onto.id });
      else if (onto) desk.changeMark(view, onto.id, { size: [rows, columns], counts: encode(pixels, rows, columns), strokes: [...before, trace] });
      else if (any) desk.addMark(view, { kind: "mask", size: [rows, columns], counts: encode(pixels, rows, columns), strokes: [trace] });
      view.redraw();
    },
    hover(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {[number, number]} */ p) {
      cursor = { view, p };
      view.drawInk();
    },
    cancel(/** @type {any} */ view) {
      if (held) desk.penUp();
      held = null;
      view.redraw();
    },
    busy: () => held !== null,
    /** The mark in hand is drawn from here, not from the list. */
    hides: (/** @type {any} */ mark) => held?.onto?.id === mark.id,
    paint(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ view) {
      const colour = INK[held?.onto?.role || desk.role].colour;
      if (held?.view === view) {
        if (!held.drawn) {
          const whole = held.onto ? [0, 0, held.rows, held.columns] : held.touched;
          held.drawn = tinted(held.pixels, held.rows, held.columns, whole, colour);
        }
        const [a, b, c, d, e, f] = view.affine();
        context.save();
        context.transform(b, d, a, c, e, f);
        context.drawImage(held.drawn.canvas, held.drawn.c, held.drawn.r);
        context.restore();
      }
      if (cursor?.view === view) {
        // round in pixels of the source, as the mask will be
        const [a, b, c, d, e, f] = view.affine();
        context.save();
        context.transform(b, d, a, c, e, f);
        context.beginPath();
        context.arc(cursor.p[1], cursor.p[0], Math.max(2 / view.zoom, desk.brushRadius), 0, 2 * Math.PI);
        context.restore();
        for (const [style, width] of [["rgba(0,0,0,0.8)", 3], [erase ? "#ffb4a8" : colour, 1.4]]) {
          context.strokeStyle = /** @type {string} */ (style);
          context.lineWidth = /** @type {number} */ (width);
          context.setLineDash(erase ? [4, 3] : []);
          context.stroke();
        }
        context.setLineDash([]);
      }
    },
    leave() { cursor = null; },
  };
}
