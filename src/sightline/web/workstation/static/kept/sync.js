// @ts-check
/**
 * From the page to the server: an operation goes to memory, to this computer's disk, to the server, and only when the
 * server says saved does it leave the disk. Batches of one read and one page load, in the order they were made.
 */
import { call } from "./server.js";
import { Outbox } from "./outbox.js";

const MOST = 100;
// one operation alone may be longer
const LARGEST = 900_000;
const LARGEST_MASK = 7_500_000;
// what is no part of the reader's work
const ASIDE = new Set(["submit", "shown"]);
const PAUSES = [250, 500, 1000, 2000, 4000];

/** @typedef {import("./outbox.js").Kept} Kept */
/** @typedef {{word: "saved"|"saving"|"away"|"signed-out"|"unkept"|"refused", n: number, kept: boolean}} Saving */

export class Sync extends EventTarget {
  /**
   * @param {string} reader id of who is signed in: what another reader left here is never sent in his name
   * @param {Outbox | null} outbox null where the browser keeps nothing
   */
  constructor(reader, outbox) {
    super();
    this.reader = reader;
    this.outbox = outbox;
    /** @type {Kept[]} */
    this.waiting = [];
    /** @type {Kept[]} */
    this.refused = [];
    this.writing = 0;
    this.foreign = 0;
    this.away = false;
    this.signedOut = false;
    this.failures = 0;
    /** @type {any} */
    this.timer = null;
    this.running = false;
    this.again = false;
    this.stopped = false;
    /** clients of this page load: only their clock can be compared with now @type {Set<string>} */
    this.clients = new Set();
    this.online = () => { this.failures = 0; this.kick(); };
    window.addEventListener("online", this.online);
  }

  /** Take up what an earlier page load left on this computer. */
  async resume(read = "") {
    if (!this.outbox) return;
    const here = new Set([...this.waiting, ...this.refused].map((record) => record.id));
    const left = await this.outbox.all("ops");
    this.foreign = left.filter((record) => record.reader !== this.reader).length;
    const mine = left.filter((record) => record.reader === this.reader && !here.has(record.id) && (!read || record.read === read));
    this.waiting = [...mine.filter((record) => !record.refused), ...this.waiting];
    this.refused = [...mine.filter((record) => record.refused), ...this.refused];
    this.changed();
    this.kick();
  }

  /** Operations of a read that the server has not acknowledged, in order. @param {string} read */
  unsent(read) {
    return this.waiting.filter((record) => record.read === read).map((record) => record.op);
  }

  /** What the server refused of a read: it would be missing from what is submitted. @param {string} read */
  aside(read) {
    return this.refused.filter((record) => record.read === read && !ASIDE.has(record.op.kind));
  }

  /** @returns {Saving} */
  state() {
    const n = this.waiting.length + this.refused.length;
    const kept = this.outbox !== null && this.writing === 0;
    if (this.signedOut && n) return { word: "signed-out", n, kept };
    if (this.waiting.length && !this.outbox) return { word: "unkept", n, kept };
    if (this.away && n) return { word: "away", n, kept };
    if (this.waiting.length) return { word: "saving", n, kept };
    if (this.refused.length) return { word: "refused", n, kept };
    return { word: "saved", n: 0, kept: true };
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Take an operation: resolves when it lies on this computer's disk (or, without a disk, at once).
   * @param {string} read
   * @param {any} op
   */
  async keep(read, op) {
    /** @type {Kept} */
    const record = { id: op.id, reader: this.reader, read, client: op.client, op, refused: null };
    this.clients.add(op.client);
    this.waiting.push(record);
    this.changed();
    if (this.outbox) {
      this.writing += 1;
      try {
        await this.outbox.keep(record);
        // taken back while it was being written
        if (!this.waiting.includes(record)) await this.outbox.drop([record]);
      } catch {
        // disk full or storage withdrawn: from now on only the server keeps
        this.outbox = null;
      }
      this.writing -= 1;
    }
    this.changed();
    this.kick();
  }

  kick() {
    if (this.stopped) return;
    clearTimeout(this.timer);
    if (this.running) { this.again = true; return; }
    this.running = true;
    this.run().finally(() => {
      this.running = false;
      if (this.again) { this.again = false; this.kick(); }
    });
  }

  async run() {
    while (this.waiting.length && !this.signedOut && !this.stopped) {
      const sent = navigator.locks
        ? await navigator.locks.request(`sightline-send-${this.reader}`, () => this.sendOne())
        : await this.sendOne();
      if (!sent) return;
    }
    if (!this.waiting.length) this.changed();
  }

  /** The next batch: one read, one client, not too large. @returns {Kept[]} */
  batch() {
    // an operation that is still being written to the disk is not sent before it lies there
    const ready = this.outbox ? this.waiting.filter((record) => record.seq !== undefined) : this.waiting;
    const first = ready[0];
    if (!first) return [];
    const batch = [];
    let size = 0, most = LARGEST;
    for (const record of ready) {
      if (record.read !== first.read || record.client !== first.client || batch.length === MOST) break;
      const length = JSON.stringify(record.op).length;
      if (JSON.stringify(record.op.body).includes('"counts"')) most = LARGEST_MASK;
      if (batch.length && size + length > most) break;
      batch.push(record);
      size += length;
    }
    return batch;
  }

  /** @returns {Promise<boolean>} go on at once */
  async sendOne() {
    const batch = this.batch();
    if (!batch.length) return false;
    try {
      await this.post(batch);
    } catch (error) {
      const { status, answer } = /** @type {any} */ (error);
      if (status === 401) { this.signedOut = true; this.changed(); return false; }
      if ([400, 403, 404, 409, 413, 415, 422].includes(status)) return this.sendSingly(batch);
      this.away = true;
      this.later((answer?.retry_after_s || 0) * 1000);
      return false;
    }
    return true;
  }

  /** After a refusal, one by one: what is refused again is set aside, the rest goes on. @param {Kept[]} batch */
  async sendSingly(batch) {
    for (const record of batch) {
      if (!this.waiting.includes(record)) continue;
      try {
        await this.post([record]);
      } catch (error) {
        const { status, answer, message, remedy } = /** @type {any} */ (error);
        if (status === 401) { this.signedOut = true; this.changed(); return false; }
        if (status === 0 || status >= 500 || status === 429) {
          this.away = true;
          this.later((answer?.retry_after_s || 0) * 1000);
          return false;
        }
        const unsubmitted = await this.takeBackSubmission(record);
        record.refused = { status, message, remedy, conflicts: answer?.conflicts || null, unsubmitted };
        this.waiting = this.waiting.filter((other) => other !== record);
        this.refused.push(record);
        await this.outbox?.setAside(record).catch(() => {});
        this.dispatchEvent(new CustomEvent("refused", { detail: record }));
        this.changed();
      }
    }
    return true;
  }

  /** A submission behind what was refused would close the study without it. @param {Kept} refused @returns {Promise<boolean>} there was one */
  async takeBackSubmission(refused) {
    if (ASIDE.has(refused.op.kind)) return false;
    const taken = this.waiting.filter((record) => record.read === refused.read && record.op.kind === "submit");
    this.waiting = this.waiting.filter((record) => !taken.includes(record));
    await this.outbox?.drop(taken).catch(() => {});
    return taken.length > 0;
  }

  /** @param {Kept[]} batch */
  async post(batch) {
    const { read, client } = batch[0];
    const body = {
      ops: batch.map((record) => record.op),
      sent_mono_ms: this.clients.has(client) ? performance.now() : null, sent_at_ms: Date.now(),
    };
    const answer = await call("POST", `/reads/${read}/ops`, body, { timeout: 60000 });
    const saved = new Set(answer.saved);
    const done = batch.filter((record) => saved.has(record.id));
    await this.outbox?.drop(done).catch(() => {});
    this.waiting = this.waiting.filter((record) => !saved.has(record.id));
    this.away = false;
    this.failures = 0;
    this.dispatchEvent(new CustomEvent("saved", { detail: { read, ids: [...saved], answer } }));
    this.changed();
    if (done.length < batch.length) this.later(0);
  }

  /** @param {number} atLeast ms */
  later(atLeast) {
    const pause = Math.max(PAUSES[Math.min(this.failures, PAUSES.length - 1)], atLeast);
    this.failures += 1;
    this.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.kick(), pause);
  }

  /** Somebody signed in again. @param {string} reader */
  signedIn(reader) {
    this.signedOut = false;
    this.away = false;
    if (reader === this.reader) this.kick();
    this.changed();
  }

  /** Give up what the server refused, with changes of a mark that was never taken. @param {Kept} record */
  async forget(record) {
    const mark = record.op.body.mark?.id;
    const gone = this.refused.filter((other) => other === record || (mark && other.read === record.read && other.op.body.mark === mark));
    this.refused = this.refused.filter((other) => !gone.includes(other));
    await this.outbox?.drop(gone).catch(() => {});
    this.changed();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    window.removeEventListener("online", this.online);
  }
}
