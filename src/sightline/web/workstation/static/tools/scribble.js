// @ts-check
/** A scribble: every point with its time and pressure, in thousandths of a pixel; none is resampled, none is dropped. */
import { countPoints, rounded } from "../marks/geometry.js";
import { drawStroke, INK } from "../picture/paint.js";

const DRAFT_MS = 500;
// half of what the server takes: each point stands in a line and in a stroke
const MOST_POINTS = 100_000;

/** @param {any} desk the marking screen */
export function scribble(desk) {
  /** @type {any} */
  let stroke = null;
  let drafted = 0;

  const point = (/** @type {PointerEvent} */ event, /** @type {number[]} */ p) => [rounded(p[0]), rounded(p[1]), rounded(Math.max(0, event.timeStamp - stroke.begun), 1), rounded(event.pressure, 4)];

  return {
    name: "scribble",
    cursor: "crosshair",
    /** @param {any} view @param {PointerEvent} event @param {[number, number]} p */
    down(view, event, p) {
      stroke = { view, image: view.image.key, pointer: event.pointerType || "mouse", begun: event.timeStamp, t0: rounded(Math.max(0, event.timeStamp - desk.readyAt), 1), extend: event.shiftKey, points: [] };
      stroke.points.push(point(event, p));
      drafted = performance.now();
      desk.penDown();
      view.drawInk();
    },
    /** @param {any} view @param {PointerEvent} _ @param {{event: PointerEvent, p: [number, number]}[]} many */
    move(view, _, many) {
      if (!stroke) return;
      for (const one of many) {
        stroke.points.push(point(one.event, one.p));
        if (stroke.points.length < MOST_POINTS) continue;
        this.end(view);
        desk.tell("tool.scribble_full");
        return;
      }
      view.drawInk();
      if (performance.now() - drafted >= DRAFT_MS) {
        drafted = performance.now();
        desk.keepDraft({ image: stroke.image, mark: this.made() });
      }
    },
    /** @param {any} view @param {PointerEvent} event @param {[number, number]} p */
    up(view, event, p) {
      if (!stroke) return;
      const last = stroke.points.at(-1), end = point(event, p);
      if (last[0] !== end[0] || last[1] !== end[1]) stroke.points.push(end);
      this.end(view);
    },
    end(/** @type {any} */ view) {
      const mark = this.made(), { image, extend } = stroke;
      stroke = null;
      desk.penUp();
      desk.keepDraft(null);
      const target = extend ? desk.selected() : null;
      const joins = target?.kind === "scribble" && target.image === image;
      if (joins && countPoints(target) + countPoints(mark) <= 2 * MOST_POINTS) {
        desk.changeMark(view, target.id, { lines: [...target.lines, ...mark.lines], strokes: [...(target.strokes || []), ...mark.strokes] });
      } else {
        desk.addMark(view, mark);
        if (joins) desk.tell("tool.scribble_apart");
      }
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
