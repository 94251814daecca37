// @ts-check
/** A box, drawn from corner to corner; smaller than a pixel it makes nothing, and says so where that was no mere click. */
import { drawMark } from "../picture/paint.js";

const LEAST_PX = 1;
/** pixels of the screen that a hand moves in a click */
const CLICK_PX = 4;

/** @param {any} desk */
export function box(desk) {
  /** @type {any} */
  let held = null;

  const corners = () => {
    const { a, b, view } = held;
    const { rows, columns } = view.read;
    const inside = (/** @type {number} */ v, /** @type {number} */ top) => Math.max(0, Math.min(top, v));
    return {
      start: [inside(Math.min(a[0], b[0]), rows), inside(Math.min(a[1], b[1]), columns)],
      stop: [inside(Math.max(a[0], b[0]), rows), inside(Math.max(a[1], b[1]), columns)],
    };
  };

  return {
    name: "box",
    cursor: "crosshair",
    down(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
      held = { view, a: p, b: p, x: event.clientX, y: event.clientY };
      desk.penDown();
    },
    move(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {{p: [number, number]}[]} */ many) {
      if (!held) return;
      held.b = /** @type {any} */ (many.at(-1)).p;
      view.drawInk();
    },
    up(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
      if (!held) return;
      held.b = p;
      const { start, stop } = corners();
      const moved = Math.hypot(event.clientX - held.x, event.clientY - held.y);
      held = null;
      desk.penUp();
      if (stop[0] - start[0] >= LEAST_PX && stop[1] - start[1] >= LEAST_PX) {
        desk.addMark(view, { kind: "box", start, stop, strokes: [] });
      } else if (moved > CLICK_PX) desk.tell("tool.box_too_small");
      view.redraw();
    },
    cancel(/** @type {any} */ view) {
      if (held) desk.penUp();
      held = null;
      view.redraw();
    },
    busy: () => held !== null,
    paint(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ view) {
      if (held?.view === view) drawMark(context, view, { kind: "box", role: desk.role, ...corners() });
    },
  };
}
