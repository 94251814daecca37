// @ts-check
/**
 * Sagittal, coronal and axial slices of a volume by plain slicing, with a cross that links them. A plane is a picture
 * whose (row, column) are two of the voxel axes, turned so that the patient stands upright and looks at the reader.
 */
import { getArray, query } from "../kept/server.js";
import { t } from "../page/words.js";
import { drawLine, drawName } from "./paint.js";

/**
 * @typedef {{shape: number[], spacing_mm: number[], orientation: string[], windows: any[], centre: number[] | null}} Facts
 * @typedef {{name: "sagittal"|"coronal"|"axial", axis: number, rowAxis: number, columnAxis: number, rowTurned: boolean, columnTurned: boolean}} Plane
 */

const ALONG = { R: "x", L: "x", A: "y", P: "y", S: "z", I: "z" };
const BLOCK = 8;
const KEPT = 48;

/** @param {string[]} orientation towards where each voxel axis runs @returns {Plane[]} */
export function planesOf(orientation) {
  const axisOf = (/** @type {string} */ letter) => orientation.findIndex((to) => /** @type {any} */ (ALONG)[to] === letter);
  const [x, y, z] = [axisOf("x"), axisOf("y"), axisOf("z")];
  // rows run down: to the feet, or to the back; columns run to the patient's left, or to the back
  const turned = (/** @type {number} */ axis, /** @type {string} */ to) => orientation[axis] !== to;
  return [
    { name: "sagittal", axis: x, rowAxis: z, columnAxis: y, rowTurned: turned(z, "I"), columnTurned: turned(y, "P") },
    { name: "coronal", axis: y, rowAxis: z, columnAxis: x, rowTurned: turned(z, "I"), columnTurned: turned(x, "L") },
    { name: "axial", axis: z, rowAxis: y, columnAxis: x, rowTurned: turned(y, "P"), columnTurned: turned(x, "L") },
  ];
}

export class Volume {
  /** @param {string} key @param {Facts} facts */
  constructor(key, facts) {
    this.key = key;
    this.facts = facts;
    this.planes = planesOf(facts.orientation);
    /** the voxel under the cross @type {number[]} */
    this.cross = [];
    this.moveTo(facts.centre || facts.shape.map((n) => n / 2));
    /** @type {Map<string, Promise<any>>} */
    this.blocks = new Map();
  }

  /** Slices of a block, fetched once and kept for a while. @param {number} axis @param {number} block */
  fetchBlock(axis, block) {
    const name = `${axis} ${block}`;
    let held = this.blocks.get(name);
    if (!held) {
      const index = block * BLOCK, count = Math.min(BLOCK, this.facts.shape[axis] - index);
      held = getArray(query(`/volumes/${this.key}/slices`, { axis, index, count }), "i2").then((raw) => (raw.shape.length === 2 ? { ...raw, shape: [1, ...raw.shape] } : raw));
      held.catch(() => this.blocks.delete(name));
      this.blocks.set(name, held);
      if (this.blocks.size > KEPT) this.blocks.delete(/** @type {string} */ (this.blocks.keys().next().value));
    }
    return held;
  }

  /**
   * A slice as a raster, as it hangs.
   * @param {Plane} plane
   * @param {number} index
   * @returns {Promise<import("./grey.js").Raster>}
   */
  async slice(plane, index) {
    const block = Math.floor(index / BLOCK);
    const raw = await this.fetchBlock(plane.axis, block);
    if (index % BLOCK > BLOCK / 2 && (block + 1) * BLOCK < this.facts.shape[plane.axis]) this.fetchBlock(plane.axis, block + 1).catch(() => {});
    const [h, w] = raw.shape.slice(1);
    const flat = raw.values.subarray((index % BLOCK) * h * w, (index % BLOCK + 1) * h * w);
    const [rows, columns] = [plane.rowAxis, plane.columnAxis].map((axis) => this.facts.shape[axis]);
    const out = new Int16Array(rows * columns);
    const [rowStep, columnStep] = plane.rowAxis < plane.columnAxis ? [w, 1] : [1, w];
    for (let r = 0, k = 0; r < rows; r += 1) {
      const i = (plane.rowTurned ? rows - 1 - r : r) * rowStep;
      for (let c = 0; c < columns; c += 1, k += 1) out[k] = flat[i + (plane.columnTurned ? columns - 1 - c : c) * columnStep];
    }
    return { rows, columns, values: out, low: -32768, colour: false };
  }

  /** Let a view show a plane. @param {any} view @param {Plane} plane */
  hangIn(view, plane) {
    const bone = { centre: 300, width: 1500, function: "linear", invert: false }, mm = this.facts.spacing_mm;
    Object.assign(view, { volume: this, plane, index: this.cross[plane.axis], plain: bone, window: bone, spacing: [mm[plane.rowAxis], mm[plane.columnAxis]] });
  }

  /** The slice at which a view stands, unless it has gone on meanwhile. @param {any} view */
  async showIn(view) {
    const { index, plane } = view;
    const raster = await this.slice(plane, index);
    if (view.ended.signal.aborted || view.index !== index) return;
    view.stored = { raster, scale: { slope: 1, intercept: 0, invert: false }, start: view.plain };
    view.show(raster, this.aspect(plane));
    if (view.kept) { view.take(view.kept); view.kept = null; }
    view.corners.ne.textContent = t("picture.slice", { n: index + 1, of: this.facts.shape[plane.axis] });
  }

  /** The cross to a place of all three axes. @param {number[]} voxel */
  moveTo(voxel) {
    this.cross = voxel.map((v, i) => Math.max(0, Math.min(this.facts.shape[i] - 1, Math.floor(v))));
  }

  /** Of a box. @param {any} mark */
  middle(mark) {
    return mark.start.map((/** @type {number} */ v, /** @type {number} */ i) => (v + mark.stop[i]) / 2);
  }

  /** The cross some slices on from where a view stands. @param {any} view @param {number} step */
  step({ plane, index }, step) {
    this.moveTo(this.cross.map((v, axis) => (axis === plane.axis ? index + step : v)));
  }

  /** Views of this volume to the slices at the cross. @param {any[]} views @param {(error: any) => void} failed */
  follow(views, failed) {
    for (const view of views) {
      if (view.volume !== this) continue;
      const index = this.cross[view.plane.axis];
      if (index === view.index) { view.redraw(); continue; }
      view.index = index;
      this.showIn(view).catch(failed);
    }
  }

  /** Height of a pixel over its width. @param {Plane} plane */
  aspect(plane) {
    return this.facts.spacing_mm[plane.rowAxis] / this.facts.spacing_mm[plane.columnAxis];
  }

  /** Where the planes cross, the patient's side at column 0, and a ring in the middle of the volume. @param {CanvasRenderingContext2D} context @param {any} view */
  paintCross(context, view) {
    const [r, c] = this.toPlane(view.plane, this.cross.map((/** @type {number} */ v) => v + 0.5));
    const { rows, columns } = view.read || { rows: 0, columns: 0 }, gap = 12 / view.zoom;
    for (const line of [[[0, c], [r - gap, c]], [[r + gap, c], [rows, c]], [[r, 0], [r, c - gap]], [[r, c + gap], [r, columns]]]) drawLine(context, view, line, false, { colour: "#ffd54a", dash: [3, 4], width: 0.9 });
    const side = [rows / 2, 16 / view.zoom];
    drawName(context, view, { kind: "box", start: side, stop: side }, view.plane.name === "sagittal" ? "A" : "R", "#ffd54a");
    const at = this.facts.centre;
    if (!at || Math.abs(at[view.plane.axis] - view.index) > 0.5) return;
    const [x, y] = view.toScreen(this.toPlane(view.plane, at));
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1.2;
    context.beginPath();
    context.arc(x, y, 6, 0, 2 * Math.PI);
    context.stroke();
  }

  /** A voxel place in (row, column) of a plane. @param {Plane} plane @param {number[]} voxel @returns {[number, number]} */
  toPlane(plane, voxel) {
    const { shape } = this.facts;
    const r = voxel[plane.rowAxis], c = voxel[plane.columnAxis];
    return [plane.rowTurned ? shape[plane.rowAxis] - r : r, plane.columnTurned ? shape[plane.columnAxis] - c : c];
  }

  /** The other way; the third axis is taken from `depth`. @param {Plane} plane @param {number[]} p @param {number} depth @returns {number[]} */
  toVoxel(plane, p, depth) {
    const { shape } = this.facts, voxel = [0, 0, 0];
    voxel[plane.axis] = depth;
    voxel[plane.rowAxis] = plane.rowTurned ? shape[plane.rowAxis] - p[0] : p[0];
    voxel[plane.columnAxis] = plane.columnTurned ? shape[plane.columnAxis] - p[1] : p[1];
    return voxel;
  }

  /** A mark as it cuts a plane, or null where it does not. @param {any} mark @param {Plane} plane @param {number} index */
  cut(mark, plane, index) {
    if (mark.kind !== "box" || mark.start.length !== 3 || index + 1 <= mark.start[plane.axis] || index >= mark.stop[plane.axis]) return null;
    const a = this.toPlane(plane, mark.start), b = this.toPlane(plane, mark.stop);
    return { ...mark, start: [Math.min(a[0], b[0]), Math.min(a[1], b[1])], stop: [Math.max(a[0], b[0]), Math.max(a[1], b[1])] };
  }

  /** A flat box as one of the volume; new ones are as deep as they are wide at their narrower side. @param {Plane} plane @param {number} index @param {any} flat @param {any} [mark] whose depth is kept */
  deepen(plane, index, flat, mark) {
    const a = this.toVoxel(plane, flat.start, 0), b = this.toVoxel(plane, flat.stop, 0);
    const start = a.map((v, i) => Math.min(v, b[i])), stop = a.map((v, i) => Math.max(v, b[i]));
    if (mark) {
      start[plane.axis] = mark.start[plane.axis];
      stop[plane.axis] = mark.stop[plane.axis];
    } else {
      const mm = Math.min((flat.stop[0] - flat.start[0]) * this.facts.spacing_mm[plane.rowAxis], (flat.stop[1] - flat.start[1]) * this.facts.spacing_mm[plane.columnAxis]);
      const half = Math.max(0.5, mm / this.facts.spacing_mm[plane.axis] / 2);
      start[plane.axis] = Math.max(0, index + 0.5 - half);
      stop[plane.axis] = Math.min(this.facts.shape[plane.axis], index + 0.5 + half);
    }
    return { ...flat, start, stop };
  }
}
