// @ts-check
/** A scribble: every point with its time and pressure, as it came; none is resampled, none is dropped. */
import { drawStroke, INK } from "../picture/paint.js";

const DRAFT_MS = 500;

/** @param {any} desk the marking screen */
export function scribble(desk) {
  /** @type {any} */
  let stroke = null;
  let drafted = 0;

  const point = (/** @type {PointerEvent} */ event, /** @type {number[]} */ p) => [p[0], p[1], Math.max(0, event.timeStamp - stroke.begun), event.pressure];

  return {
    name: "scribble",
    cursor: "crosshair",
    /** @param {any} view @param {PointerEvent} event @param {[number, number]} p */
    down(view, event, p) {
      stroke = { view, image: view.image.key, pointer: event.pointerType || "mouse", begun: event.timeStamp, t0: Math.max(0, event.timeStamp - desk.readyAt), extend: event.shiftKey, points: [] };
      stroke.points.push(point(event, p));
      drafted = performance.now();
      desk.penDown();
      view.drawInk();
    },
    /** @param {any} view @param {PointerEvent} _ @param {{event: PointerEvent, p: [number, number]}[]} many */
    move(view, _, many) {
      if (!stroke) return;
      for (const one of many) stroke.points.push(point(one.event, one.p));
      view.drawInk();
      if (performance.now() - drafted >= DRAFT_MS) {
        drafted = performance.now();
        desk.keepDraft({ image: stroke.image, mark: this.made() });
      }
    },
    /** @param {any} view @param {PointerEvent} event @param {[number, number]} p */
    up(view, event, p) {
      if (!stroke) return;
      const last = stroke.points.at(-1);
      if (last[0] !== p[0] || last[1] !== p[1]) stroke.points.push(point(event, p));
      const mark = this.made(), { image, extend } = stroke;
      stroke = null;
      desk.penUp();
      desk.keepDraft(null);
      const target = extend ? desk.selected() : null;
      if (target?.kind === "scribble" && target.image === image) {
        desk.changeMark(view, target.id, { lines: [...target.lines, ...mark.lines], strokes: [...(target.strokes || []), ...mark.strokes] });
      } else desk.addMark(view, mark);
      view.redraw();
    },
    cancel(/** @type {any} */ view) {
      if (!stroke) return;
      stroke = null;
      desk.penUp();
      desk.keepDraft(null);
      view.redraw();
    },
    made() {
      return {
        kind: "scribble", lines: [stroke.points.map((/** @type {number[]} */ p) => [p[0], p[1]])], stroke_px: desk.strokeWidth,
        strokes: [{ pointer: stroke.pointer, t0_ms: stroke.t0, points: stroke.points.slice() }],
      };
    },
    busy: () => stroke !== null,
    /** @param {CanvasRenderingContext2D} context @param {any} view */
    paint(context, view) {
      if (stroke?.view === view) drawStroke(context, view, stroke.points, desk.strokeWidth, INK[desk.role].colour, 0.55);
    },
  };
}
