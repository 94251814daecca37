// @ts-check
/** Reads and their pictures, fetched once and fetched ahead: the next study is there before it is asked for. */
import { get, getArray, query } from "./server.js";
import { rasterOf } from "../picture/grey.js";

const KEPT_BYTES = 400_000_000;

/** @type {Map<string, {promise: Promise<any>, bytes: number}>} */
const pictures = new Map();
/** @type {Map<string, Promise<any>>} */
const reads = new Map();

/** @param {string} name @param {() => Promise<any>} fetchIt @param {(value: any) => number} size */
function kept(name, fetchIt, size) {
  const held = pictures.get(name);
  if (held) {
    pictures.delete(name);
    pictures.set(name, held);
    return held.promise;
  }
  const entry = { promise: fetchIt(), bytes: 0 };
  pictures.set(name, entry);
  entry.promise.then((value) => {
    entry.bytes = size(value);
    let sum = [...pictures.values()].reduce((a, one) => a + one.bytes, 0);
    for (const [other, one] of pictures) {
      if (sum <= KEPT_BYTES || other === name) break;
      pictures.delete(other);
      sum -= one.bytes;
    }
  }, () => pictures.delete(name));
  return entry.promise;
}

/** The picture as the network was given it. @param {{key: string, etag: string}} image @returns {Promise<import("../picture/grey.js").Raster>} */
export const displayOf = (image) => kept(`${image.key} ${image.etag}`, async () => {
  const raw = await getArray(`/images/${image.key}/pixels`, "u2");
  return { ...rasterOf(raw), aspect: Number(raw.headers.get("X-Aspect")) || 1 };
}, (raster) => raster.values.byteLength);

/** What is known of an image, and its stored numbers where the file has them. @param {{key: string, etag: string}} image */
export const storedOf = (image) => kept(`${image.key} ${image.etag} stored`, async () => {
  const facts = await get(`/images/${image.key}`);
  const raster = facts.stored && facts.greyscale ? rasterOf(await getArray(query(`/images/${image.key}/pixels`, { values: "stored" }), "u2")) : null;
  return { facts, raster };
}, (value) => value.raster?.values.byteLength || 0);

/** @param {{key: string}} image @returns {Promise<import("../picture/planes.js").Volume>} */
export const volumeOf = (image) => kept(`${image.key} volume`, async () => {
  const [facts, { Volume }] = await Promise.all([get(`/volumes/${image.key}`), import("../picture/planes.js")]);
  return new Volume(image.key, facts);
}, () => 1_000_000);

/** Fetch a read and its pictures ahead. @param {string} id */
export function fetchAhead(id) {
  const held = reads.get(id);
  if (held) return held;
  const promise = get(`/reads/${id}`);
  reads.set(id, promise);
  promise.then((read) => {
    for (const image of read.study.images) {
      if (image.unavailable) continue;
      (image.kind === "volume" ? volumeOf(image) : displayOf(image)).catch(() => {});
    }
  }, () => reads.delete(id));
  if (reads.size > 4) reads.delete(/** @type {string} */ (reads.keys().next().value));
  return promise;
}

/**
 * A read that was fetched ahead, once; else from the server. Another window may have worked on it since it was fetched:
 * the server is asked, and only where it is not reached, or slow, stands what was fetched.
 * @param {string} id
 */
export async function openRead(id) {
  const held = reads.get(id);
  reads.delete(id);
  if (!held) return get(`/reads/${id}`);
  const read = await held;
  const asked = get(query(`/reads/${id}/ops`, { after: read.server_seq })).catch((error) => { if (error.status) throw error; });
  const late = new Promise((resolve) => setTimeout(resolve, 1000));
  const since = await Promise.race([asked, late]);
  return since && (since.ops.length || since.state !== read.state) ? get(`/reads/${id}`) : read;
}

/** Another reader signed in: nothing of the last one's stays. */
export function forgetAll() {
  reads.clear();
  pictures.clear();
}
