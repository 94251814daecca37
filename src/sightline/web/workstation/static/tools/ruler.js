// @ts-check
/** A length, shown and not kept: mm where a spacing is known, and where it holds. */
import { distance } from "../marks/geometry.js";
import { drawLine } from "../picture/paint.js";
import { number, t } from "../page/words.js";

/** @param {any} desk */
export function ruler(desk) {
  /** @type {any} */
  let held = null;

  const words = () => {
    const { a, b, view } = held;
    const mm = view.spacing;
    if (!mm) return `${number(distance(a, b, view.aspect), 1)} px`;
    const length = Math.hypot((a[0] - b[0]) * mm[0], (a[1] - b[1]) * mm[1]);
    return `${number(length, 1)} mm${view.spacingAt === "detector" ? ` ${t("picture.at_detector")}` : ""}`;
  };

  return {
    name: "ruler",
    cursor: "crosshair",
    down(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {[number, number]} */ p) { held = { view, a: p, b: p, open: true }; },
    move(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {{p: [number, number]}[]} */ many) {
      if (!held) return;
      held.b = /** @type {any} */ (many.at(-1)).p;
      view.drawInk();
    },
    up(/** @type {any} */ view) {
      if (held) {
        held.open = false;
        desk.tellText(words());
      }
      view.redraw();
    },
    cancel(/** @type {any} */ view) {
      held = null;
      view?.redraw();
    },
    leave() { held = null; },
    busy: () => Boolean(held?.open),
    paint(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ view) {
      if (held?.view !== view) return;
      drawLine(context, view, [held.a, held.b], false, { colour: "#ffd54a", dash: [], width: 1.6 });
      const [x, y] = view.toScreen(held.b);
      context.font = "600 13px system-ui, sans-serif";
      context.lineWidth = 3;
      context.strokeStyle = "rgba(0, 0, 0, 0.9)";
      context.strokeText(words(), x + 10, y - 8);
      context.fillStyle = "#ffd54a";
      context.fillText(words(), x + 10, y - 8);
    },
  };
}
