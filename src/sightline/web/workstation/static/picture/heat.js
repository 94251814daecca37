// @ts-check
/**
 * A network's map over a picture, in the colours of `plots/overlay`: inferno without its ends, clear at the minimum,
 * the picture a little darker under it. Safe for colour-blind eyes: it grows lighter from end to end.
 */
import { get, getArray } from "../kept/server.js";

const MOST_OPAQUE = 0.72;
const HEAT_RISE = 1.5;
const DIMMED = 0.85;
const INFERNO =
  "6a176e6c186e6c186e6d186e6d186e6f196e6f196e71196e721a6e721a6e741a6e741a6e751b6e751b6e771c6d771c6d781c6d781c6d7a1d6d7a1d6d7c1d6d7c" +
  "1d6d7d1e6d7f1e6c7f1e6c801f6c801f6c82206c82206c84206b84206b85216b85216b87216b87216b88226a88226a8a226a8c23698c23698d23698d23698f24" +
  "698f24699025689025689225689225689326679326679526679526679727669827669827669a28659a28659b29649b29649d29649d29649f2a639f2a63a02a63" +
  "a02a63a22b62a22b62a32c61a32c61a52c60a62d60a62d60a82e5fa82e5fa92e5ea92e5eab2f5eab2f5ead305dad305dae305cae305cb0315bb0315bb1325ab3" +
  "325ab3325ab43359b43359b63458b63458b73557b73557b93556b93556ba3655ba3655bc3754bc3754bd3853bf3952bf3952c03a51c03a51c13a50c13a50c33b" +
  "4fc33b4fc43c4ec43c4ec63d4dc63d4dc73e4cc73e4cc83f4bc83f4bca404acb4149cb4149cc4248cc4248ce4347ce4347cf4446cf4446d04545d04545d24644" +
  "d24644d34743d34743d44842d54a41d54a41d74b3fd74b3fd84c3ed84c3ed94d3dd94d3dda4e3cda4e3cdb503bdb503bdd513add513ade5238df5337df5337e0" +
  "5536e05536e15635e15635e25734e25734e35933e35933e45a31e45a31e55c30e55c30e65d2fe65d2fe75e2ee8602de8602de9612be9612bea632aea632aeb64" +
  "29eb6429eb6628eb6628ec6726ec6726ed6925ed6925ee6a24ef6c23ef6c23ef6e21ef6e21f06f20f06f20f1711ff1711ff1731df1731df2741cf2741cf3761b" +
  "f3761bf37819f47918f47918f57b17f57b17f57d15f57d15f67e14f67e14f68013f68013f78212f78212f78410f78410f8850ff8870ef8870ef8890cf8890cf9" +
  "8b0bf98b0bf98c0af98c0af98e09f98e09fa9008fa9008fa9207fa9207fa9407fa9407fb9606fb9706fb9706fb9906fb9906fb9b06fb9b06fb9d07fb9d07fc9f" +
  "07fc9f07fca108fca108fca309fca309fca50afca60cfca60cfca80dfca80dfcaa0ffcaa0ffcac11fcac11fcae12fcae12fcb014fcb014fcb216fcb216fcb418";

/** @param {number} level 0..1 @returns {[number, number, number]} */
export function heatColour(level) {
  const i = Math.max(0, Math.min(255, Math.floor(level * 256))) * 6;
  const part = (/** @type {number} */ k) => parseInt(INFERNO.slice(i + k, i + k + 2), 16);
  return [part(0), part(2), part(4)];
}

/** @type {Uint8ClampedArray | null} */
let table = null;

/** How many levels the layer tells apart: a multiple of the colours, so that no level gets its neighbour's colour. */
const LEVELS = 2048;

/** RGBA of all levels as a layer: laid over grey it gives what `heat_over` gives, within 1 of 255. */
function layerTable() {
  if (table) return table;
  table = new Uint8ClampedArray(LEVELS * 4);
  for (let i = 0; i < LEVELS; i += 1) {
    const level = (i + 0.5) / LEVELS, opacity = MOST_OPAQUE * level ** HEAT_RISE;
    const alpha = 1 - (1 - opacity) * DIMMED, kept = Math.round(alpha * 255) / 255;
    // what rounding takes from the opacity is given to the colour, for a middle grey; a canvas keeps the product of
    // colour and opacity in whole numbers: it is rounded here, once
    const colour = heatColour(level).map((v) => Math.round(v * opacity + (kept - alpha) * 127.5) / kept);
    table.set([...colour, kept * 255], i * 4);
  }
  return table;
}

/** @param {number} x Keys' cubic with a = -0.75, as torch has it */
function cubic(x) {
  const a = -0.75, t = Math.abs(x);
  if (t <= 1) return (a + 2) * t ** 3 - (a + 3) * t ** 2 + 1;
  return t < 2 ? a * t ** 3 - 5 * a * t ** 2 + 8 * a * t - 4 * a : 0;
}

/**
 * Bicubic on a grid k times as fine, half-pixel centres, clipped to the range of the cells.
 * @param {Float32Array} cells
 * @param {number} h
 * @param {number} w
 * @param {number} k
 */
export function enlarged(cells, h, w, k) {
  let low = Infinity, high = -Infinity;
  for (const value of cells) { low = Math.min(low, value); high = Math.max(high, value); }
  const along = (/** @type {number} */ n) => Array.from({ length: n * k }, (_, i) => {
    const x = (i + 0.5) / k - 0.5, first = Math.floor(x);
    return [-1, 0, 1, 2].map((d) => ({ i: Math.max(0, Math.min(n - 1, first + d)), weight: cubic(x - first - d) }));
  });
  const rows = along(h), columns = along(w);
  const between = new Float64Array(h * w * k);
  for (let r = 0; r < h; r += 1) columns.forEach((taps, c) => {
    let sum = 0;
    for (const tap of taps) sum += tap.weight * cells[r * w + tap.i];
    between[r * w * k + c] = sum;
  });
  const out = new Float32Array(h * k * w * k);
  rows.forEach((taps, r) => {
    for (let c = 0; c < w * k; c += 1) {
      let sum = 0;
      for (const tap of taps) sum += tap.weight * between[tap.i * w * k + c];
      out[r * w * k + c] = Math.max(low, Math.min(high, sum));
    }
  });
  return out;
}

/**
 * @typedef {{shape: number[], values: Float32Array, frame: number[]}} HeatMap `frame`: [a, b, c, d, e, f], a cell (i, j) of the
 *   map lies at row a i + b j + c, column d i + e j + f of the picture
 */

/**
 * The map as a layer.
 * @param {HeatMap} map
 * @param {{low: number, high: number, smooth: boolean}} options
 */
export function heatCanvas(map, options) {
  const [h, w] = map.shape;
  const k = options.smooth ? Math.max(1, Math.min(64, Math.round(512 / Math.max(h, w)))) : 1;
  const values = k > 1 ? enlarged(map.values, h, w, k) : map.values;
  const canvas = document.createElement("canvas");
  canvas.width = w * k;
  canvas.height = h * k;
  const image = new ImageData(canvas.width, canvas.height);
  const layer = layerTable(), span = options.high - options.low;
  for (let i = 0; i < values.length; i += 1) {
    const level = span > 0 ? Math.max(0, Math.min(1, (values[i] - options.low) / span)) : 0;
    const j = Math.min(LEVELS - 1, Math.floor(level * LEVELS)) * 4;
    image.data.set(layer.subarray(j, j + 4), i * 4);
  }
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
  return { canvas, k };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./view.js").View} view
 * @param {HeatMap} map
 * @param {{canvas: HTMLCanvasElement, k: number}} heat
 * @param {number} opacity 0..1
 * @param {boolean} smooth
 */
export function drawHeat(context, view, map, heat, opacity, smooth) {
  const [a, b, c, d, e, f] = view.affine();
  const [m0, m1, m2, m3, m4, m5] = map.frame;
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.transform(b, d, a, c, e, f);
  // the context's x is a column, its y a row
  context.transform(m4 / heat.k, m1 / heat.k, m3 / heat.k, m0 / heat.k, m5, m2);
  context.drawImage(heat.canvas, 0, 0);
  context.restore();
}

/**
 * The map's own number at a place of the picture, exactly as it is stored; null outside.
 * @param {HeatMap} map
 * @param {number[]} p row, column
 */
export function mapValue(map, p) {
  const [a, b, c, d, e, f] = map.frame;
  const det = a * e - b * d;
  if (!det) return null;
  const r = p[0] - c, q = p[1] - f;
  const i = Math.floor((e * r - b * q) / det), j = Math.floor((a * q - d * r) / det);
  return i < 0 || j < 0 || i >= map.shape[0] || j >= map.shape[1] ? null : map.values[i * map.shape[1] + j];
}

/** A run's map over a view's picture. @param {any} view @param {string} run @param {number} label @returns {Promise<(context: any) => void>} */
export async function loadHeat(view, run, label) {
  const { maps } = await get(`/images/${view.image.key}/maps`);
  const map = maps.find((/** @type {any} */ one) => one.run === run);
  const raw = await getArray(`/images/${view.image.key}/maps/${run}/${label}`);
  const frame = (raw.headers.get("X-Frame") || "").split(",").map(Number);
  const grid = { shape: raw.shape, values: raw.values, frame }, heat = heatCanvas(grid, { low: map.low, high: map.high, smooth: true });
  return (context) => drawHeat(context, view, grid, heat, 0.9, true);
}
