// @ts-check
/** Geometry of marks in (row, column), continuous, origin at the corner of pixel (0, 0). */
import { decode, encode, extent } from "./run_lengths.js";

/** @typedef {[number, number]} Point row, column */
/** @typedef {import("./fold.js").Mark} Mark */

/** In widths of a pixel. @param {number[]} a @param {number[]} b @param {number} [aspect] height of a pixel over its width */
export const distance = (a, b, aspect = 1) => Math.hypot((a[0] - b[0]) * aspect, a[1] - b[1]);

/** As a mark keeps it: in thousandths, so that many points stay few bytes. @param {number} value @param {number} [digits] */
export const rounded = (value, digits = 3) => Number(value.toFixed(digits));

/** How many points a mark holds, in its lines and in its strokes. @param {any} mark */
export const countPoints = (mark) => [...(mark.lines || []), ...(mark.strokes || []).map((/** @type {any} */ one) => one.points)].reduce((sum, line) => sum + line.length, 0);

/** Distance of a point from a segment. @param {number[]} p @param {number[]} a @param {number[]} b @param {number} [aspect] */
export function fromSegment(p, a, b, aspect = 1) {
  const d0 = (b[0] - a[0]) * aspect, d1 = b[1] - a[1], square = d0 * d0 + d1 * d1;
  const p0 = (p[0] - a[0]) * aspect, p1 = p[1] - a[1];
  const s = square ? Math.max(0, Math.min(1, (p0 * d0 + p1 * d1) / square)) : 0;
  return Math.hypot(p0 - s * d0, p1 - s * d1);
}

/** @param {number[]} p @param {number[][]} line @param {boolean} closed @param {number} [aspect] */
export function fromLine(p, line, closed, aspect) {
  let least = line.length ? distance(p, line[0], aspect) : Infinity;
  const stop = closed ? line.length : line.length - 1;
  for (let i = 0; i < stop; i += 1) least = Math.min(least, fromSegment(p, line[i], line[(i + 1) % line.length], aspect));
  return least;
}

/** Even-odd rule. @param {number[]} p @param {number[][]} ring */
export function isInside(p, ring) {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
    const [r1, c1] = ring[i], [r2, c2] = ring[j];
    if (r1 > p[0] !== r2 > p[0] && p[1] < ((c2 - c1) * (p[0] - r1)) / (r2 - r1) + c1) inside = !inside;
  }
  return inside;
}

/** The smallest upright box around a mark: [row start, column start, row stop, column stop]. @param {any} mark */
export function bounds(mark) {
  if (mark.kind === "box") return [...mark.start.slice(-2), ...mark.stop.slice(-2)];
  if (mark.kind === "mask") return extent(mark.counts, mark.size[0]) || [0, 0, 0, 0];
  const half = mark.kind === "scribble" ? mark.stroke_px / 2 : 0;
  const points = (mark.parts || mark.lines).flat();
  const rows = points.map((/** @type {Point} */ p) => p[0]), columns = points.map((/** @type {Point} */ p) => p[1]);
  const low = (/** @type {number[]} */ v) => v.reduce((a, b) => Math.min(a, b), Infinity);
  const high = (/** @type {number[]} */ v) => v.reduce((a, b) => Math.max(a, b), -Infinity);
  return [low(rows) - half, low(columns) - half, high(rows) + half, high(columns) + half];
}

/**
 * How far a point is from being on a mark: 0 on its line (or in a mask), Infinity where it is nowhere near.
 * @param {any} mark
 * @param {Point} p
 * @param {number} reach widths of a pixel
 * @param {number} [aspect] of a pixel
 */
export function closeness(mark, p, reach, aspect = 1) {
  if (mark.kind === "box") {
    const [r0, c0, r1, c1] = bounds(mark);
    const ring = [[r0, c0], [r0, c1], [r1, c1], [r1, c0]], d = fromLine(p, ring, true, aspect);
    return d <= reach ? d : isInside(p, ring) ? reach : Infinity;
  }
  if (mark.kind === "polygon") {
    const d = Math.min(...mark.parts.map((/** @type {Point[]} */ ring) => fromLine(p, ring, true, aspect)));
    return d <= reach ? d : mark.parts.some((/** @type {Point[]} */ ring) => isInside(p, ring)) ? reach : Infinity;
  }
  if (mark.kind === "scribble") {
    // a stroke is round in pixels of the source; how far beyond its rim, the same to all sides
    const d = Math.max(0, Math.min(...mark.lines.map((/** @type {Point[]} */ line) => fromLine(p, line, false))) - mark.stroke_px / 2) * Math.sqrt(aspect);
    return d <= reach ? d : Infinity;
  }
  const [rows, columns] = mark.size;
  const r = Math.floor(p[0]), c = Math.floor(p[1]);
  if (r < 0 || c < 0 || r >= rows || c >= columns) return Infinity;
  const place = c * rows + r;
  let sum = 0;
  for (let i = 0; i < mark.counts.length; i += 1) {
    sum += mark.counts[i];
    if (place < sum) return i % 2 ? reach : Infinity;
  }
  return Infinity;
}

/**
 * The geometry of a mark moved by (rows, columns): what a `change` sets. Masks move by whole pixels.
 * @param {any} mark
 * @param {number} dr
 * @param {number} dc
 */
export function moved(mark, dr, dc) {
  const shift = (/** @type {Point} */ p) => [p[0] + dr, p[1] + dc];
  if (mark.kind === "box") {
    const to = (/** @type {number[]} */ v) => [...v.slice(0, -2), ...shift(/** @type {any} */ (v.slice(-2)))];
    return { start: to(mark.start), stop: to(mark.stop) };
  }
  const along = (/** @type {Point[]} */ line) => line.map((p) => shift(p).map((x) => rounded(x)));
  if (mark.kind === "polygon") return { parts: mark.parts.map(along) };
  if (mark.kind === "scribble") return { lines: mark.lines.map(along) };
  const [rows, columns] = mark.size;
  const from = decode(mark.counts, rows, columns), to = new Uint8Array(rows * columns);
  const sr = Math.round(dr), sc = Math.round(dc);
  for (let r = 0; r < rows; r += 1) {
    if (r + sr < 0 || r + sr >= rows) continue;
    for (let c = 0; c < columns; c += 1) {
      if (from[r * columns + c] && c + sc >= 0 && c + sc < columns) to[(r + sr) * columns + c + sc] = 1;
    }
  }
  return { size: [rows, columns], counts: encode(to, rows, columns) };
}

/** The geometry alone. @param {any} mark */
export function geometryOf(mark) {
  const names = { box: ["start", "stop"], polygon: ["parts"], scribble: ["lines", "stroke_px"], mask: ["size", "counts"] };
  return Object.fromEntries(/** @type {any} */ (names)[mark.kind].map((/** @type {string} */ name) => [name, structuredClone(mark[name])]));
}

/** A mark moved so that it begins inside a picture of another size, where it lies outside. @param {any} mark @param {number} rows @param {number} columns */
export function broughtInto(mark, rows, columns) {
  if (mark.kind === "mask") {
    const [r, c] = mark.size;
    if (r === rows && c === columns) return geometryOf(mark);
    const from = decode(mark.counts, r, c), to = new Uint8Array(rows * columns);
    for (let i = 0; i < Math.min(r, rows); i += 1) for (let j = 0; j < Math.min(c, columns); j += 1) to[i * columns + j] = from[i * c + j];
    return { size: [rows, columns], counts: encode(to, rows, columns) };
  }
  const [r0, c0, r1, c1] = bounds(mark);
  const dr = r0 >= rows || r1 <= 0 ? (rows - r0 - r1) / 2 : 0;
  const dc = c0 >= columns || c1 <= 0 ? (columns - c0 - c1) / 2 : 0;
  return dr || dc ? { ...geometryOf(mark), ...moved(mark, dr, dc) } : geometryOf(mark);
}

/**
 * A disc drawn along a line into a mask.
 * @param {Uint8Array} pixels row by row
 * @param {number} rows
 * @param {number} columns
 * @param {Point} a
 * @param {Point} b
 * @param {number} radius
 * @param {0 | 1} value
 * @returns {[number, number, number, number]} what was touched: rows and columns
 */
export function brushed(pixels, rows, columns, a, b, radius, value) {
  const r0 = Math.max(0, Math.floor(Math.min(a[0], b[0]) - radius)), r1 = Math.min(rows, Math.ceil(Math.max(a[0], b[0]) + radius));
  const c0 = Math.max(0, Math.floor(Math.min(a[1], b[1]) - radius)), c1 = Math.min(columns, Math.ceil(Math.max(a[1], b[1]) + radius));
  for (let r = r0; r < r1; r += 1) {
    for (let c = c0; c < c1; c += 1) {
      if (fromSegment([r + 0.5, c + 0.5], a, b) <= radius) pixels[r * columns + c] = value;
    }
  }
  // the smallest brush still marks the pixel under it
  for (const p of [a, b]) {
    const r = Math.floor(p[0]), c = Math.floor(p[1]);
    if (r >= 0 && c >= 0 && r < rows && c < columns) pixels[r * columns + c] = value;
  }
  return [Math.max(0, r0), Math.max(0, c0), r1, c1];
}
