// @ts-check
/** Marks as ink: colours and dashes of `plots/overlay`, so that panels and page look alike; a dash says the role without colour. */
import { bounds } from "../marks/geometry.js";
import { decode, extent } from "../marks/run_lengths.js";

/** @typedef {import("./view.js").View} View */

export const INK = /** @type {{[role: string]: {colour: string, dash: number[]}}} */ ({
  finding: { colour: "#8cff3f", dash: [] },
  focus: { colour: "#3fd2ff", dash: [8, 4] },
  gaze: { colour: "#ff8ae2", dash: [2, 3] },
  organ: { colour: "#c9c9ff", dash: [12, 4, 3, 4] },
});

/** Colours of readers and runs, told apart by colour-blind eyes too (Okabe and Ito 2008). */
export const HUES = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00"];

/** @type {WeakMap<any, {canvas: HTMLCanvasElement, r: number, c: number} | null>} */
const masks = new WeakMap();

/** @param {string} hex @returns {[number, number, number]} */
const rgb = (hex) => [parseInt(hex.slice(1, 3), 16), parseInt(hex.slice(3, 5), 16), parseInt(hex.slice(5, 7), 16)];

/** @param {any} mark @param {string} colour */
function maskCanvas(mark, colour) {
  const held = masks.get(mark);
  if (held !== undefined) return held;
  const [rows, columns] = mark.size;
  const part = extent(mark.counts, rows);
  if (!part) { masks.set(mark, null); return null; }
  const drawn = tinted(decode(mark.counts, rows, columns), rows, columns, part, colour);
  masks.set(mark, drawn);
  return drawn;
}

/**
 * A mask as a picture: the rim strong, the inside thin, so that what is marked stays visible.
 * @param {Uint8Array} pixels
 * @param {number} rows
 * @param {number} columns
 * @param {number[]} part
 * @param {string} colour
 */
export function tinted(pixels, rows, columns, part, colour) {
  const [r0, c0, r1, c1] = part;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, c1 - c0);
  canvas.height = Math.max(1, r1 - r0);
  const image = new ImageData(canvas.width, canvas.height);
  const [red, green, blue] = rgb(colour);
  for (let r = r0, k = 0; r < r1; r += 1) {
    for (let c = c0; c < c1; c += 1, k += 4) {
      const i = r * columns + c;
      if (!pixels[i]) continue;
      const inside = r > 0 && c > 0 && r + 1 < rows && c + 1 < columns && pixels[i - 1] && pixels[i + 1] && pixels[i - columns] && pixels[i + columns];
      image.data.set([red, green, blue, inside ? 64 : 220], k);
    }
  }
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
  return { canvas, r: r0, c: c0 };
}

/**
 * A line, dark rim under it.
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {number[][]} points
 * @param {boolean} closed
 * @param {{colour: string, dash: number[], width: number}} style
 */
export function drawLine(context, view, points, closed, style) {
  if (!points.length) return;
  context.beginPath();
  points.forEach((p, i) => {
    const [x, y] = view.toScreen(p);
    if (i) context.lineTo(x, y); else context.moveTo(x, y);
  });
  if (closed) context.closePath();
  context.lineJoin = "round";
  context.lineCap = "round";
  context.setLineDash([]);
  context.strokeStyle = "rgba(0, 0, 0, 0.75)";
  context.lineWidth = style.width + 1.6;
  context.stroke();
  context.setLineDash(style.dash);
  context.strokeStyle = style.colour;
  context.lineWidth = style.width;
  context.stroke();
  context.setLineDash([]);
}

/**
 * A stroke as wide as it is, seen through.
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {number[][]} line
 * @param {number} width source pixels
 * @param {string} colour
 * @param {number} [strength]
 */
export function drawStroke(context, view, line, width, colour, strength = 0.5) {
  const [a, b, c, d, e, f] = view.affine();
  context.lineJoin = "round";
  context.lineCap = "round";
  context.setLineDash([]);
  context.strokeStyle = colour;
  context.save();
  // round in pixels of the source, whatever their shape
  context.transform(b, d, a, c, e, f);
  context.beginPath();
  line.forEach(([y, x], i) => { if (i) context.lineTo(x, y); else context.moveTo(x, y); });
  if (line.length === 1) context.lineTo(line[0][1] + 0.01, line[0][0]);
  context.globalAlpha = strength;
  context.lineWidth = Math.max(width, 1.2 / view.zoom);
  context.stroke();
  context.restore();
  context.globalAlpha = Math.min(1, strength * 2);
  context.lineWidth = 1.2;
  context.stroke();
  context.globalAlpha = 1;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {any} mark
 * @param {{selected?: boolean, colour?: string, thin?: boolean, corner?: number, name?: string}} [options] `corner`: handle in hand
 */
export function drawMark(context, view, mark, options = {}) {
  const ink = INK[mark.role] || INK.focus;
  const colour = options.colour || ink.colour;
  const style = { colour, dash: ink.dash, width: options.thin ? 1.5 : options.selected ? 2.4 : 1.8 };
  if (mark.kind === "box") {
    const [r0, c0, r1, c1] = bounds(mark);
    drawLine(context, view, [[r0, c0], [r0, c1], [r1, c1], [r1, c0]], true, style);
  } else if (mark.kind === "polygon") {
    for (const ring of mark.parts) drawLine(context, view, ring, true, style);
  } else if (mark.kind === "scribble") {
    for (const line of mark.lines) {
      if (options.thin) drawLine(context, view, line, false, { ...style, dash: [] });
      else drawStroke(context, view, line, mark.stroke_px, colour, options.selected ? 0.5 : 0.36);
    }
  } else if (mark.size?.length === 2) {
    const drawn = maskCanvas(mark, colour);
    if (drawn) {
      const [a, b, c, d, e, f] = view.affine();
      context.save();
      context.transform(b, d, a, c, e, f);
      context.imageSmoothingEnabled = view.zoom < 1;
      context.drawImage(drawn.canvas, drawn.c, drawn.r);
      context.restore();
    }
  }
  if (options.selected) for (const [i, p] of handlesOf(mark).entries()) drawHandle(context, view, p, colour, i === options.corner);
  if (options.name) drawName(context, view, mark, options.name, colour);
}

/** @param {CanvasRenderingContext2D} context @param {View} view @param {any} mark @param {string} name @param {string} colour */
export function drawName(context, view, mark, name, colour) {
  const [r0, c0, r1, c1] = bounds(mark);
  const corners = [[r0, c0], [r0, c1], [r1, c0], [r1, c1]].map((p) => view.toScreen(p));
  const x = Math.max(4, Math.min(...corners.map((p) => p[0]))), y = Math.max(12, Math.min(...corners.map((p) => p[1])) - 6);
  context.font = "600 12px system-ui, sans-serif";
  context.lineWidth = 3;
  context.strokeStyle = "rgba(0, 0, 0, 0.85)";
  context.strokeText(name, x, y);
  context.fillStyle = colour;
  context.fillText(name, x, y);
}

/** @param {CanvasRenderingContext2D} context @param {View} view @param {number[]} p @param {string} colour @param {boolean} held */
function drawHandle(context, view, p, colour, held) {
  const [x, y] = view.toScreen(p);
  const half = held ? 5.5 : 4;
  context.fillStyle = held ? colour : "#0b0f13";
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  context.rect(x - half, y - half, 2 * half, 2 * half);
  context.fill();
  context.stroke();
}

/** Points that can be moved alone. @param {any} mark @returns {number[][]} */
export function handlesOf(mark) {
  if (mark.kind === "box") {
    const [r0, c0, r1, c1] = bounds(mark);
    return [[r0, c0], [r0, c1], [r1, c1], [r1, c0]];
  }
  if (mark.kind === "polygon") return mark.parts.flat();
  if (mark.kind === "scribble") return mark.lines.flatMap((/** @type {any} */ line) => (line.length > 1 ? [line[0], line.at(-1)] : [line[0]]));
  return [];
}
