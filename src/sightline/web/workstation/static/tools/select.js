// @ts-check
/** Select, move and edit: a mark by its line, a corner by its handle; double click on a polygon's side adds a corner. */
import { bounds, closeness, distance, fromSegment, geometryOf, moved } from "../marks/geometry.js";
import { handlesOf } from "../picture/paint.js";

const REACH_PX = 9;

/**
 * A mark's geometry with one handle elsewhere.
 * @param {any} mark
 * @param {number} corner
 * @param {[number, number]} p
 */
export function reshaped(mark, corner, p) {
  if (mark.kind === "box") {
    const [r0, c0, r1, c1] = bounds(mark);
    const opposite = [[r1, c1], [r1, c0], [r0, c0], [r0, c1]][corner];
    const start = [Math.min(p[0], opposite[0]), Math.min(p[1], opposite[1])], stop = [Math.max(p[0], opposite[0]), Math.max(p[1], opposite[1])];
    return { start: [...mark.start.slice(0, -2), ...start], stop: [...mark.stop.slice(0, -2), ...stop] };
  }
  let i = corner;
  const rings = mark.kind === "polygon" ? mark.parts : mark.lines;
  const out = rings.map((/** @type {any[]} */ ring) => ring.slice());
  if (mark.kind === "scribble") {
    const ends = rings.flatMap((/** @type {any[]} */ line, /** @type {number} */ k) => (line.length > 1 ? [[k, 0], [k, line.length - 1]] : [[k, 0]]));
    const [k, at] = ends[corner];
    out[k][at] = p;
    return { lines: out };
  }
  for (const ring of out) {
    if (i < ring.length) { ring[i] = p; break; }
    i -= ring.length;
  }
  return { parts: out };
}

/** @param {any} mark */
export const isSound = (mark) => mark.kind !== "box" || mark.start.every((/** @type {number} */ v, /** @type {number} */ i) => mark.stop[i] > v);

/** @param {any} desk */
export function select(desk) {
  /** @type {any} */
  let held = null;

  const handleAt = (/** @type {any} */ view, /** @type {any} */ mark, /** @type {[number, number]} */ p) => {
    const near = handlesOf(mark).map((h, i) => ({ i, d: distance(h, p, view.aspect) * view.zoom })).filter((h) => h.d <= REACH_PX);
    return near.sort((a, b) => a.d - b.d)[0]?.i ?? -1;
  };

  const markAt = (/** @type {any} */ view, /** @type {[number, number]} */ p) => {
    const reach = REACH_PX / view.zoom;
    const near = desk.marksOf(view).map((/** @type {any} */ mark) => ({ mark, d: closeness(mark, p, reach, view.aspect) })).filter((/** @type {any} */ one) => one.d < Infinity);
    // of several the nearest line, and of equals the one made last
    return near.reverse().sort((/** @type {any} */ a, /** @type {any} */ b) => a.d - b.d)[0]?.mark || null;
  };

  return {
    name: "select",
    cursor: "default",
    down(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {[number, number]} */ p) {
      const selected = desk.selected();
      const own = selected ? desk.marksOf(view).find((/** @type {any} */ mark) => mark.id === selected.id) || null : null;
      if (own?.kind === "polygon" && view.press.count === 2 && this.addCorner(view, own, p)) return;
      const corner = own ? handleAt(view, own, p) : -1;
      const mark = corner >= 0 ? own : markAt(view, p);
      desk.select(mark?.id || null, corner);
      if (!mark && view.plane) { held = { view, cross: true }; desk.moveCross(view, p); return; }
      held = mark && !desk.readOnly() ? { view, mark, corner, from: p, moved: false, now: mark } : null;
    },
    move(/** @type {any} */ view, /** @type {PointerEvent} */ _, /** @type {{p: [number, number]}[]} */ many) {
      if (!held) return;
      const p = /** @type {any} */ (many.at(-1)).p;
      if (held.cross) { desk.moveCross(view, p); return; }
      if (!held.moved && distance(p, held.from, view.aspect) * view.zoom < 3) return;
      if (!held.moved) desk.penDown();
      held.moved = true;
      const change = held.corner >= 0 ? reshaped(held.mark, held.corner, p) : held.mark.kind === "mask" ? {} : moved(held.mark, p[0] - held.from[0], p[1] - held.from[1]);
      held.now = { ...held.mark, ...change };
      held.p = p;
      view.drawInk();
    },
    up(/** @type {any} */ view) {
      if (!held) return;
      const { mark, now, from, p } = held;
      const was = held;
      held = null;
      if (!was.moved) return;
      desk.penUp();
      const set = mark.kind === "mask" ? moved(mark, p[0] - from[0], p[1] - from[1]) : geometryOf(now);
      if (isSound({ ...mark, ...set })) desk.changeMark(view, mark.id, set);
      view.redraw();
    },
    cancel(/** @type {any} */ view) {
      if (held?.moved) desk.penUp();
      held = null;
      view?.redraw();
    },
    addCorner(/** @type {any} */ view, /** @type {any} */ mark, /** @type {[number, number]} */ p) {
      for (const [k, ring] of mark.parts.entries()) {
        for (let i = 0; i < ring.length; i += 1) {
          const a = ring[i], b = ring[(i + 1) % ring.length], reach = REACH_PX / view.zoom;
          if (fromSegment(p, a, b, view.aspect) > reach || distance(p, a, view.aspect) <= reach || distance(p, b, view.aspect) <= reach) continue;
          const parts = mark.parts.map((/** @type {any[]} */ one) => one.slice());
          parts[k].splice(i + 1, 0, p);
          desk.changeMark(view, mark.id, { parts });
          return true;
        }
      }
      return false;
    },
    busy: () => held?.moved || false,
    hides: (/** @type {any} */ mark) => Boolean(held?.moved && held.mark.id === mark.id),
    shown: () => (held?.moved ? held.now : null),
    paint() {},
  };
}
