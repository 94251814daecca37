// @ts-check
/** The one way to the server: JSON and raw arrays, errors with message and remedy. */

import { ofServer } from "../page/words.js";

export class ServerError extends Error {
  /**
   * @param {number} status 0 where the server was not reached
   * @param {any} answer
   */
  constructor(status, answer) {
    super(ofServer(answer?.message || `HTTP ${status}`));
    this.status = status;
    this.remedy = ofServer(answer?.remedy || "");
    this.answer = answer || {};
  }
}

/** Called on every 401 but that of a sign-in. @type {() => void} */
let signedOut = () => {};
/** @param {() => void} act */
export const onSignedOut = (act) => { signedOut = act; };

/**
 * @param {string} method
 * @param {string} path below /api/v1, beginning with a slash
 * @param {any} [body]
 * @param {{headers?: {[name: string]: string}, timeout?: number, keepalive?: boolean, quiet?: boolean}} [more]
 * @returns {Promise<Response>}
 */
async function ask(method, path, body, more = {}) {
  /** @type {{[name: string]: string}} */
  const headers = { ...(more.headers || {}) };
  if (method !== "GET") headers["X-Sightline"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method, headers, credentials: "same-origin", keepalive: more.keepalive || false,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(more.timeout || 20000),
    });
  } catch (error) {
    throw new ServerError(0, { message: String(/** @type {any} */ (error)?.message || error) });
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 401 && !more.quiet) signedOut();
    throw new ServerError(answer.status, said);
  }
  return answer;
}

/**
 * A request whose answer is JSON, or nothing (204).
 * @param {string} method
 * @param {string} path
 * @param {any} [body]
 * @param {any} [more]
 * @returns {Promise<any>}
 */
export async function call(method, path, body, more) {
  const answer = await ask(method, path, body, more);
  if (answer.status === 204) return null;
  const type = answer.headers.get("Content-Type") || "";
  try {
    return type.includes("json") ? await answer.json() : null;
  } catch {
    throw new ServerError(0, { message: "The answer broke off." });
  }
}

/** @param {string} path @param {any} [more] */
export const get = (path, more) => call("GET", path, undefined, more);

/**
 * A path with a query; empty values are left out.
 * @param {string} path
 * @param {{[name: string]: any}} values
 */
export function query(path, values) {
  const parts = Object.entries(values).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  return parts.length ? `${path}?${parts.map(([k, v]) => `${k}=${encodeURIComponent(String(v))}`).join("&")}` : path;
}

/**
 * @typedef {{shape: number[], dtype: string, values: any, headers: Headers, waiting: boolean}} Raw
 */

/**
 * An array as it lies on the server; `waiting` where it is being computed still (202).
 * @param {string} path
 * @param {string} [dtype] where the answer does not state one
 * @returns {Promise<Raw>}
 */
export async function getArray(path, dtype = "f4") {
  const answer = await ask("GET", path, undefined, { timeout: 60000 });
  const headers = answer.headers;
  if (answer.status === 202) return { shape: [], dtype, values: null, headers, waiting: true };
  const kind = headers.get("X-Dtype") || dtype;
  const shape = (headers.get("X-Shape") || "").split(",").map(Number);
  let bytes;
  try {
    bytes = await answer.arrayBuffer();
  } catch {
    throw new ServerError(0, { message: "The answer broke off." });
  }
  const make = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array, i4: Int32Array, f4: Float32Array }[kind];
  if (!make) throw new ServerError(0, { message: `${path}: numbers of type ${kind} are not known here.` });
  const values = new make(bytes);
  if (values.length !== shape.reduce((a, b) => a * b, 1)) {
    throw new ServerError(0, { message: `${path}: ${values.length} numbers came, ${shape.join(" x ")} was said.` });
  }
  return { shape, dtype: kind, values, headers, waiting: false };
}
