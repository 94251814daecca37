// @ts-check
/** Masks as COCO run lengths: runs of 0 and 1 in column order, the first run outside. */

/**
 * @param {Uint8Array} pixels row by row, 0 or 1
 * @param {number} rows
 * @param {number} columns
 * @returns {number[]}
 */
export function encode(pixels, rows, columns) {
  const counts = [];
  let value = 0, run = 0;
  for (let c = 0; c < columns; c += 1) {
    for (let r = 0, i = c; r < rows; r += 1, i += columns) {
      if (pixels[i] === value) run += 1;
      else { counts.push(run); value = pixels[i]; run = 1; }
    }
  }
  counts.push(run);
  return counts;
}

/**
 * @param {number[]} counts
 * @param {number} rows
 * @param {number} columns
 * @returns {Uint8Array} row by row
 */
export function decode(counts, rows, columns) {
  const pixels = new Uint8Array(rows * columns);
  let place = 0;
  counts.forEach((run, i) => {
    if (i % 2) {
      for (let k = place; k < place + run; k += 1) pixels[(k % rows) * columns + Math.floor(k / rows)] = 1;
    }
    place += run;
  });
  return pixels;
}

/**
 * The rows and columns that a mask touches: [row start, column start, row stop, column stop], or null where it is empty.
 * @param {number[]} counts
 * @param {number} rows
 */
export function extent(counts, rows) {
  let place = 0;
  let r0 = Infinity, r1 = -1, c0 = Infinity, c1 = -1;
  counts.forEach((run, i) => {
    if (i % 2 && run > 0) {
      const a = Math.floor(place / rows), b = Math.floor((place + run - 1) / rows);
      c0 = Math.min(c0, a);
      c1 = Math.max(c1, b);
      if (a === b) {
        r0 = Math.min(r0, place % rows);
        r1 = Math.max(r1, (place + run - 1) % rows);
      } else { r0 = 0; r1 = rows - 1; }
    }
    place += run;
  });
  return r1 < 0 ? null : [r0, c0, r1 + 1, c1 + 1];
}
