// @ts-check
/**
 * What the clock of the server counts from: when the page was visible, in focus and used. The rule itself (30 s
 * without input stop it) is the server's; here only events are made, kept and sent.
 */
import { call } from "./server.js";

export const IDLE_MS = 30_000;
const INPUT_MS = 2_000;

export class Clock {
  /**
   * @param {string} reader
   * @param {string} read
   * @param {string} client
   * @param {import("./outbox.js").Outbox | null} outbox
   */
  constructor(reader, read, client, outbox) {
    Object.assign(this, { reader, read, client, outbox });
    this.reader = reader; this.read = read; this.client = client; this.outbox = outbox;
    this.n = 0;
    /** @type {any[]} */
    this.waiting = [];
    this.lastInput = performance.now();
    this.lastTold = -Infinity;
    this.idle = false;
    this.marked = false;
    this.closed = false;
    /** @type {any} */
    this.idleTimer = null;
    this.sending = false;
    this.ears = /** @type {[any, string, any][]} */ ([
      [document, "visibilitychange", () => this.add(document.hidden ? "hidden" : "shown", this.last())],
      [window, "blur", () => this.add("blur", this.last())],
      [window, "focus", () => this.add("focus")],
      [window, "pagehide", () => this.close(true)],
      ...["pointerdown", "pointermove", "wheel", "keydown"].map((name) => [window, name, () => this.input()]),
    ]);
    for (const [target, name, act] of this.ears) target.addEventListener(name, act, { capture: true, passive: true });
    this.add("open", { visible: !document.hidden, focused: document.hasFocus() });
    this.watch();
    this.ticking = setInterval(() => this.send(), 5000);
  }

  last() {
    return { last_input_ms: this.lastInput };
  }

  /**
   * @param {string} kind
   * @param {any} [body]
   * @param {number} [mono]
   */
  add(kind, body = {}, mono = performance.now()) {
    if (this.closed) return;
    this.n += 1;
    const event = { client: this.client, n: this.n, kind, mono_ms: mono, at_ms: Date.now() - (performance.now() - mono), body };
    this.waiting.push(event);
    const { reader, read, client } = this;
    this.outbox?.keepEvents([{ key: `${client} ${this.n}`, reader, read, client, event }]).catch(() => {});
  }

  watch() {
    clearTimeout(this.idleTimer);
    this.idleTimer = setTimeout(() => this.fallIdle(), IDLE_MS);
  }

  fallIdle() {
    const end = this.lastInput + IDLE_MS;
    if (this.idle || this.closed) return;
    if (performance.now() < end) {
      this.idleTimer = setTimeout(() => this.fallIdle(), end - performance.now() + 5);
      return;
    }
    this.idle = true;
    this.add("idle", this.last(), end);
  }

  input() {
    const now = performance.now();
    // a computer that slept ran no timer: the pause is told before the input that ends it
    if (!this.idle && now - this.lastInput >= IDLE_MS) this.fallIdle();
    this.lastInput = now;
    if (this.idle) {
      this.idle = false;
      this.add("wake", this.last());
      this.lastTold = now;
      this.watch();
    } else if (now - this.lastTold >= INPUT_MS) {
      this.lastTold = now;
      this.add("input", this.last());
    }
  }

  firstMark() {
    if (!this.marked) this.add("first_mark", this.last());
    this.marked = true;
  }

  /** @param {boolean} [keepalive] the page goes away */
  async send(keepalive = false) {
    if (this.sending || !this.waiting.length) return;
    this.sending = true;
    const batch = this.waiting.slice(0, 500);
    try {
      await sendEvents(this.read, batch, performance.now(), keepalive);
      this.waiting = this.waiting.slice(batch.length);
      await this.outbox?.dropEvents(batch.map((event) => `${event.client} ${event.n}`));
    } catch (error) {
      // what the server refuses for good is not sent for ever; all else waits for the next turn
      const status = /** @type {any} */ (error).status;
      if (status >= 400 && status < 500 && status !== 401 && status !== 429) {
        this.waiting = this.waiting.slice(batch.length);
        await this.outbox?.dropEvents(batch.map((event) => `${event.client} ${event.n}`)).catch(() => {});
      }
    } finally {
      this.sending = false;
    }
  }

  /** @param {boolean} [leaving] */
  close(leaving = false) {
    if (this.closed) return;
    this.fallIdleIfDue();
    this.add("close", this.last());
    this.closed = true;
    clearTimeout(this.idleTimer);
    clearInterval(this.ticking);
    for (const [target, name, act] of this.ears) target.removeEventListener(name, act, { capture: true });
    this.sending = false;
    return this.send(leaving);
  }

  fallIdleIfDue() {
    if (!this.idle && performance.now() - this.lastInput >= IDLE_MS) this.fallIdle();
  }
}

/**
 * @param {string} read
 * @param {any[]} events
 * @param {number | null} now performance.now() of the page load that made them, null where it is gone
 * @param {boolean} [keepalive]
 */
function sendEvents(read, events, now, keepalive = false) {
  return call("POST", `/reads/${read}/events`, { events, sent_mono_ms: now, sent_at_ms: Date.now() }, { keepalive });
}

/**
 * Events that an earlier page load could not send.
 * @param {string} reader
 * @param {import("./outbox.js").Outbox} outbox
 * @param {Set<string>} alive clients of this page load, which send for themselves
 */
export async function sendLeftEvents(reader, outbox, alive) {
  const left = (await outbox.all("events")).filter((record) => record.reader === reader && !alive.has(record.client));
  /** @type {Map<string, any[]>} */
  const groups = new Map();
  for (const record of left) {
    const key = `${record.read} ${record.client}`;
    groups.set(key, [...(groups.get(key) || []), record]);
  }
  for (const records of groups.values()) {
    records.sort((a, b) => a.event.n - b.event.n);
    for (let start = 0; start < records.length; start += 500) {
      const part = records.slice(start, start + 500);
      try {
        await sendEvents(part[0].read, part.map((record) => record.event), null);
      } catch (error) {
        const status = /** @type {any} */ (error).status;
        if (!(status >= 400 && status < 500) || status === 401 || status === 429) return;
      }
      await outbox.dropEvents(part.map((record) => record.key)).catch(() => {});
    }
  }
}
