// @ts-check
/**
 * From numbers to grey: one table of 65,536 entries. The order is that of DICOM PS3.4, N.2 (as `io/dicom/greyscale`
 * has it): stored value, slope and intercept, window, polarity; what comes out has 16 bits and is shown with 8.
 */

/**
 * @typedef {{centre: number, width: number, function: string, invert: boolean}} Window
 * @typedef {{rows: number, columns: number, values: any, low: number, colour: boolean, aspect?: number}} Raster `low`:
 *   smallest number the type can hold, where the table begins; `aspect`: height of a pixel over its width, where not 1
 * @typedef {{slope: number, intercept: number, invert: boolean, padding?: [number, number] | null}} Scale
 */

/** As numpy.rint: halves go to the even number. @param {number} x */
export function rint(x) {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** A value through a window to 0..1 (PS3.3, C.11.2.1.2 and C.11.2.1.3). @param {number} value @param {Window} window */
export function windowed(value, window) {
  const { centre, width } = window;
  if (window.function === "sigmoid") return 1 / (1 + Math.exp(Math.max(-700, Math.min(700, (-4 * (value - centre)) / width))));
  if (window.function === "linear_exact") return Math.max(0, Math.min(1, (value - centre) / width + 0.5));
  if (width <= 1) return value <= centre - 0.5 ? 0 : 1;
  return Math.max(0, Math.min(1, (value - (centre - 0.5)) / (width - 1) + 0.5));
}

/** What 16 bits of display are on a screen of 8. @param {number} v */
export const eight = (v) => Math.round(v / 257);

/**
 * The table for an array of numbers: packed RGBA, little endian.
 * @param {Raster} raster
 * @param {Window | null} window null: as it was read
 * @param {Scale | null} scale null: the numbers are display values
 * @param {boolean} [turned] the reader turned black and white round
 * @returns {Uint32Array}
 */
export function greyTable(raster, window, scale, turned = false) {
  const eightBits = raster.values.BYTES_PER_ELEMENT === 1;
  const table = new Uint32Array(eightBits ? 256 : 65536);
  const flip = turned !== Boolean(window?.invert);
  for (let i = 0; i < table.length; i += 1) {
    const number = i + raster.low;
    let shown;
    if (!window) shown = eightBits ? number * 257 : number;
    else {
      const value = scale ? number * scale.slope + scale.intercept : eightBits ? number * 257 : number;
      let part = windowed(value, window);
      if (scale?.invert) part = 1 - part;
      if (scale?.padding && number >= scale.padding[0] && number <= scale.padding[1]) part = 0;
      shown = rint(part * 65535);
    }
    const grey = eight(flip ? 65535 - shown : shown);
    table[i] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  return table;
}

/**
 * A part of a picture through the table.
 * @param {Raster} raster
 * @param {Uint32Array} table
 * @param {number[]} part row start, column start, row stop, column stop
 * @param {Uint32Array} out of that size
 */
export function paintPart(raster, table, part, out) {
  const [r0, c0, r1, c1] = part;
  const { values, columns, low } = raster;
  let k = 0;
  if (raster.colour) {
    for (let r = r0; r < r1; r += 1) {
      for (let i = (r * columns + c0) * 3, stop = (r * columns + c1) * 3; i < stop; i += 3, k += 1) {
        out[k] = (0xff000000 | ((table[values[i + 2]] & 255) << 16) | ((table[values[i + 1]] & 255) << 8) | (table[values[i]] & 255)) >>> 0;
      }
    }
    return;
  }
  if (low === 0) {
    for (let r = r0; r < r1; r += 1) for (let i = r * columns + c0, stop = r * columns + c1; i < stop; i += 1, k += 1) out[k] = table[values[i]];
    return;
  }
  for (let r = r0; r < r1; r += 1) for (let i = r * columns + c0, stop = r * columns + c1; i < stop; i += 1, k += 1) out[k] = table[values[i] - low];
}

/**
 * An array from the server as a raster.
 * @param {{shape: number[], dtype: string, values: any}} raw
 * @returns {Raster}
 */
export function rasterOf(raw) {
  const colour = raw.shape.length === 3;
  const [rows, columns] = raw.shape;
  let { values } = raw;
  let low = 0;
  if (raw.dtype === "i2") low = -32768;
  if (raw.dtype === "i4") {
    // modality values of 16-bit pictures span at most 65,536 numbers; the table begins at the smallest
    low = values.reduce((/** @type {number} */ a, /** @type {number} */ b) => Math.min(a, b), Infinity);
  }
  return { rows, columns, values, low, colour };
}

/** Half the size: means of 2 x 2 pixels, so that a small picture shows what lies between its pixels too. @param {Raster} raster @returns {Raster} */
export function halved(raster) {
  const { rows, columns, values } = raster;
  const planes = raster.colour ? 3 : 1;
  const h = Math.max(1, Math.floor(rows / 2)), w = Math.max(1, Math.floor(columns / 2));
  const out = new values.constructor(h * w * planes);
  const down = rows > 1 ? columns * planes : 0, right = columns > 1 ? planes : 0;
  for (let r = 0, k = 0; r < h; r += 1) {
    for (let c = 0; c < w; c += 1) {
      const i = (2 * r * columns + 2 * c) * planes;
      for (let p = 0; p < planes; p += 1, k += 1) {
        const j = i + p;
        out[k] = (values[j] + values[j + right] + values[j + down] + values[j + down + right] + 2) >> 2;
      }
    }
  }
  return { rows: h, columns: w, values: out, low: raster.low, colour: raster.colour };
}

/**
 * The numbers at two parts of all pixels, e.g. 1 and 99 %.
 * @param {Raster} raster
 * @param {number} from
 * @param {number} to
 * @returns {[number, number]}
 */
export function percentiles(raster, from, to) {
  const counts = new Float64Array(raster.values.BYTES_PER_ELEMENT === 1 ? 256 : 65536);
  const step = Math.max(1, Math.floor(raster.values.length / 2_000_000));
  let total = 0;
  for (let i = 0; i < raster.values.length; i += step, total += 1) counts[raster.values[i] - raster.low] += 1;
  const at = (/** @type {number} */ part) => {
    let sum = 0;
    for (let i = 0; i < counts.length; i += 1) {
      sum += counts[i];
      if (sum >= part * total && sum > 0) return i + raster.low;
    }
    return counts.length - 1 + raster.low;
  };
  return [at(from), at(to)];
}

/** Windows of CTs in Hounsfield units, as the panels draw them. */
export const CT_WINDOWS = [
  { name: "bone", centre: 300, width: 1500 }, { name: "soft", centre: 40, width: 400 }, { name: "lung", centre: -600, width: 1500 },
  { name: "brain", centre: 40, width: 80 }, { name: "spine", centre: 50, width: 300 },
];
