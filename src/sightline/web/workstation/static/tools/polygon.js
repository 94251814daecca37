// @ts-check
/** A polygon, a click a corner; a click on the first one, a double click or Enter closes it. Shift adds a part to the selected one. */
import { drawLine, INK } from "../picture/paint.js";
import { distance } from "../marks/geometry.js";

const NEAR_PX = 9;

/** @param {any} desk */
export function polygon(desk) {
  /** @type {any} */
  let held = null;

  const close = () => {
    if (!held) return false;
    const { view, ring, extend } = held;
    held = null;
    desk.penUp();
    // the second click of a double click lies on the first
    const corners = ring.filter((/** @type {number[]} */ p, /** @type {number} */ i) => i === 0 || distance(p, ring[i - 1], view.aspect) * view.zoom > 1.5);
    if (corners.length >= 3) {
      const target = extend ? desk.selected() : null;
      if (target?.kind === "polygon" && target.image === view.image.key) desk.changeMark(view, target.id, { parts: [...target.parts, corners] });
      else desk.addMark(view, { kind: "polygon", parts: [corners], strokes: [] });
    } else if (corners.length) desk.tell("tool.polygon_short");
    view.redraw();
    return true;
  };

  return {
    name: "polygon",
    cursor: "crosshair",
    down(/** @type {any} */ view, /** @type {PointerEvent} */ event, /** @type {[number, number]} */ p) {
      if (held && held.view !== view) held = null;
      if (!held) {
        held = { view, ring: [], at: p, extend: event.shiftKey };
        desk.penDown();
      }
      if ((view.press.count > 1 && held.ring.length >= 3) || (held.ring.length >= 3 && distance(p, held.ring[0], view.aspect) * view.zoom <= NEAR_PX)) { close(); return; }
      held.ring.push(p);
      held.at = p;
      view.drawInk();
    },
    move(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {{p: [number, number]}[]} */ many) {
      this.hover(view, _, /** @type {any} */ (many.at(-1)).p);
    },
    up() {},
    hover(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {[number, number]} */ p) {
      if (held?.view !== view) return;
      held.at = p;
      view.drawInk();
    },
    /** Enter. */
    finish: close,
    /** Backspace: the last corner. */
    back() {
      if (!held) return false;
      held.ring.pop();
      if (!held.ring.length) this.cancel(held.view);
      else held.view.redraw();
      return true;
    },
    cancel(/** @type {any} */ view) {
      if (held) desk.penUp();
      held = null;
      view?.redraw();
    },
    busy: () => held !== null,
    paint(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ view) {
      if (held?.view !== view) return;
      const ink = INK[desk.role];
      drawLine(context, view, [...held.ring, held.at], false, { ...ink, width: 1.8 });
      const [x, y] = view.toScreen(held.ring[0]);
      context.strokeStyle = ink.colour;
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(x, y, 5, 0, 2 * Math.PI);
      context.stroke();
    },
  };
}
