// @ts-check
/** The page: who is signed in, which screen is shown, and whether everything is saved. */
import { Keys } from "./keys.js";
import { Outbox } from "./kept/outbox.js";
import { call, get, onSignedOut } from "./kept/server.js";
import { Sync } from "./kept/sync.js";
import { sendLeftEvents } from "./kept/clock.js";
import { button, el, fill, icon } from "./page/dom.js";
import { loadWords, t } from "./page/words.js";

/** @typedef {{close?: () => any, leaving?: () => Promise<void>}} Screen */

/** Screens by the first word of the address; `may` is the right that the server grants. */
const SCREENS = /** @type {{[name: string]: {may: string, load: () => Promise<any>}}} */ ({
  worklist: { may: "mark", load: () => import("./screens/worklist.js") },
  read: { may: "mark", load: () => import("./screens/marking.js") },
  compare: { may: "compare", load: () => import("./screens/compare.js") },
  agreement: { may: "agreement", load: () => import("./screens/agreement.js") },
  adjudicate: { may: "adjudicate", load: () => import("./screens/adjudicate.js") },
  gaze: { may: "gaze", load: () => import("./screens/gaze.js") },
  units: { may: "units", load: () => import("./screens/units.js") },
  results: { may: "results", load: () => import("./screens/results.js") },
  lead: { may: "plan", load: () => import("./screens/lead.js") },
  help: { may: "", load: () => import("./screens/help.js") },
});
/** Screens of tasks, which a lead may have made since the page was opened. */
const OF_TASKS = ["worklist", "compare", "agreement"];
const IN_MENU = ["worklist", "compare", "agreement", "adjudicate", "gaze", "units", "results", "lead", "help"];

class App {
  constructor() {
    /** @type {any} */
    this.me = null;
    /** @type {Sync | null} */
    this.sync = null;
    /** @type {Outbox | null} */
    this.outbox = null;
    /** @type {Keys} */
    this.keys = new Keys();
    /** @type {Screen | null} */
    this.screen = null;
    /** of the screen that is wanted: one that finds another number here, when something came for it, touches nothing shared */
    this.turn = 0;
    /** pointers that are down: a stroke under way is ended before anything stands over it @type {Set<number>} */
    this.pressed = new Set();
    /** reads that were submitted since the page was opened @type {Set<string>} */
    this.submitted = new Set();
    /** clients whose clock this page load sends itself @type {Set<string>} */
    this.alive = new Set();
    this.root = /** @type {HTMLElement} */ (document.getElementById("app"));
    this.status = el("span", { class: "saving", role: "status", "aria-live": "polite" });
    this.centre = el("div", { class: "head-centre" });
    this.main = el("main", { id: "main", tabindex: -1 });
    this.note = el("div", { class: "toast", role: "status", "aria-live": "polite", hidden: true });
    this.alarm = el("div", { class: "alarm", role: "alert", hidden: true });
  }

  async start() {
    this.applyTheme(this.remembered("theme") || "dark");
    const asked = new URLSearchParams(location.search).get("lang");
    await loadWords(asked || this.remembered("language") || (navigator.language || "en").slice(0, 2));
    const lacking = this.lacking();
    if (lacking) { this.refuse(lacking); return; }
    try {
      this.outbox = await Outbox.open();
    } catch {
      this.outbox = null;
    }
    onSignedOut(() => this.onSignedOut());
    window.addEventListener("pointerdown", (event) => this.pressed.add(event.pointerId), true);
    window.addEventListener("blur", () => this.pressed.clear());
    for (const ended of ["pointerup", "pointercancel"]) {
      window.addEventListener(ended, (event) => this.pressed.delete(/** @type {PointerEvent} */ (event).pointerId), true);
    }
    window.addEventListener("hashchange", () => this.route());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    window.addEventListener("beforeunload", (event) => {
      if (this.sync && this.sync.state().word !== "saved") event.preventDefault();
    });
    for (;;) {
      try {
        const session = await get("/session", { quiet: true });
        this.alone = session.alone;
        if (session.signed_in) await this.enter(await get("/me"));
        else await this.signIn();
        return;
      } catch (error) {
        if (/** @type {any} */ (error).status === 401) { await this.signIn(); return; }
        const again = await this.unreachable(/** @type {any} */ (error));
        if (!again) return;
      }
    }
  }

  /** What this browser cannot do; nothing half works. */
  lacking() {
    if (!("PointerEvent" in window) || !("ResizeObserver" in window) || !("HTMLDialogElement" in window)) return "app.old_browser";
    if (!window.isSecureContext || !crypto.randomUUID) return "app.insecure";
    return "";
  }

  /** @param {string} key */
  refuse(key) {
    fill(this.root, el("main", { class: "sheet" }, el("h1", { text: t("app.cannot") }), el("p", { text: t(key) })));
  }

  /** @param {any} error @returns {Promise<boolean>} */
  unreachable(error) {
    return new Promise((resolve) => {
      fill(this.root, el("main", { class: "sheet" }, el("h1", { text: t("app.no_server") }), el("p", { text: t("app.no_server_more") }), el("p", { class: "quiet", text: error.message }), button(t("again"), () => resolve(true), { class: "primary" })));
    });
  }

  /** Somebody is signed in. @param {any} me */
  async enter(me) {
    const changed = this.me && this.me.reader.id !== me.reader.id;
    this.me = me;
    if (changed) await import("./kept/study.js").then((made) => made.forgetAll(), () => {});
    const { settings } = me;
    if (settings.theme) this.applyTheme(settings.theme);
    const asked = new URLSearchParams(location.search).get("lang");
    if (settings.language && !asked) await loadWords(settings.language);
    this.keys.rebind(settings.keys || {});
    this.sync?.stop();
    this.sync = new Sync(me.reader.id, this.outbox);
    this.sync.addEventListener("change", () => this.showSaving());
    this.sync.addEventListener("refused", (event) => {
      const { read, refused } = /** @type {CustomEvent} */ (event).detail;
      if (refused.unsubmitted) this.submitted.delete(read);
      this.showRefused();
    });
    await this.sync.resume();
    if (this.outbox) sendLeftEvents(me.reader.id, this.outbox, this.alive).catch(() => {});
    this.frame();
    this.showSaving();
    await this.route();
  }

  onSignedOut() {
    if (!this.me) return;
    if (this.sync) { this.sync.signedOut = true; this.showSaving(); }
    this.overPage();
  }

  /** Each screen's script comes when it is shown: most pages are opened by somebody who is signed in. */
  async signIn() {
    await (await import("./screens/signin.js")).signIn(this);
  }

  /** The session is over; whatever happens to the network, the page goes on asking. */
  overPage() {
    import("./screens/signin.js").then((made) => {
      if (!this.me || !this.sync?.signedOut) return;
      if (this.pressed.size) setTimeout(() => this.overPage(), 50);
      else made.signInOver(this);
    },
      () => setTimeout(() => { if (this.sync?.signedOut) this.overPage(); }, 2000));
  }

  /** Head, note and the place of the screen. */
  frame() {
    const links = new Map();
    this.links = links;
    const items = IN_MENU.filter((name) => !SCREENS[name].may || this.me.may.includes(SCREENS[name].may)).map((name) => {
      const link = el("a", { href: `#/${name}`, text: t(`menu.${name}`) });
      links.set(name, link);
      return el("li", {}, link);
    });
    const who = el("details", { class: "who" },
      el("summary", { "aria-label": t("menu.who", { name: this.me.reader.display }) }, icon("user"), el("span", { class: "who-name", dir: "auto", text: this.me.reader.display })),
      el("div", { class: "who-box" },
        el("p", {}, el("strong", { dir: "auto", text: this.me.reader.display }), ` · ${t(`role.${this.me.reader.role}`)}`),
        el("a", { href: "#/help/settings", text: t("menu.settings") }),
        this.me.alone ? null : button(t("menu.sign_out"), () => this.signOut(), { class: "wide" })));
    const head = el("header", { class: "head" },
      el("a", { class: "skip", href: "#main", text: t("menu.skip"), on: { click: (/** @type {Event} */ event) => { event.preventDefault(); this.main.focus(); } } }),
      el("a", { class: "brand", href: "#/worklist", "aria-label": "sightline" }, el("span", { class: "eye", "aria-hidden": "true" }), el("span", { text: "sightline" })),
      el("nav", { class: "menu", "aria-label": t("menu.name") }, el("ul", {}, items)),
      this.centre,
      el("span", { class: "caution", text: t("not_for_diagnosis") }),
      this.status, who);
    document.addEventListener("pointerdown", (event) => { if (who.open && !who.contains(/** @type {Node} */ (event.target))) who.open = false; });
    fill(this.root, head, this.alarm, this.main, this.note);
  }

  async route() {
    const turn = ++this.turn;
    const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    let wanted = SCREENS[name] ? name : this.me.reader.role === "adjudicator" ? "adjudicate" : "worklist";
    if (SCREENS[wanted].may && !this.me.may.includes(SCREENS[wanted].may)) wanted = IN_MENU.find((one) => !SCREENS[one].may || this.me.may.includes(SCREENS[one].may)) || "help";
    await this.screen?.close?.();
    if (turn !== this.turn) return;
    this.screen = null;
    this.keys.use("all", { keys: () => this.go("help") });
    fill(this.centre);
    this.showRefused();
    for (const [one, link] of this.links || []) {
      const here = one === wanted || (one === "worklist" && wanted === "read");
      if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    document.body.dataset.screen = wanted;
    // what was closed is not left there to be worked on
    const place = el("div", { class: `screen ${wanted}` });
    fill(this.main, place);
    this.main.scrollTop = 0;
    try {
      const [made] = await Promise.all([SCREENS[wanted].load(), OF_TASKS.includes(wanted) && this.renew()]);
      if (turn !== this.turn) return;
      const screen = await made.show(this, place, rest);
      if (turn !== this.turn) { await screen?.close?.(); return; }
      this.screen = screen;
      // all that comes by itself has come, and the focus is where it stays
      place.dataset.settled = "yes";
    } catch (error) {
      if (turn !== this.turn) return;
      this.screen?.close?.();
      this.showError(/** @type {any} */ (error));
    }
  }

  /** Tasks, rights and runs as they are now; without the server, as they were. */
  async renew() {
    const me = await get("/me", { timeout: 5000 }).catch(() => null);
    if (me?.reader.id === this.me.reader.id) Object.assign(this.me, me, { settings: this.me.settings });
  }

  /** @param {string} path */
  go(path) {
    const hash = `#/${path}`;
    if (location.hash === hash) this.route();
    else location.hash = hash;
  }

  /** @param {any} error */
  showError(error) {
    if (!(error.status >= 0)) console.error(error);
    const words = error.status === 0 ? t("app.no_server") : error.message;
    fill(this.main, el("div", { class: "sheet", role: "alert" }, el("h1", { text: t("app.failed") }), el("p", { text: words }), error.remedy ? el("p", { class: "quiet", text: error.remedy }) : null, button(t("again"), () => this.route(), { class: "primary" })));
  }

  /** A word that goes away by itself. @param {string} text @param {"plain"|"bad"} [kind] */
  say(text, kind = "plain") {
    this.note.textContent = text;
    this.note.className = `toast ${kind}`;
    this.note.hidden = false;
    clearTimeout(this.noteTimer);
    this.noteTimer = setTimeout(() => { this.note.hidden = true; }, kind === "bad" ? 9000 : 4000);
  }

  showSaving() {
    if (!this.sync) return;
    const { word, n } = this.sync.state();
    const text = t(`saving.${word.replace("-", "_")}`, { n });
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.dataset.state = word;
    document.documentElement.dataset.saving = word;
    if (this.sync.foreign) this.status.title = t("saving.foreign", { n: this.sync.foreign });
  }

  /** Its script comes when something was refused. */
  showRefused() {
    this.alarm.hidden = !this.sync?.refused.length;
    if (!this.alarm.hidden) import("./page/refusals.js").then((made) => made.showRefusals(this));
  }

  async signOut() {
    await (await import("./screens/signin.js")).signOut(this);
  }

  /** @param {{[name: string]: any}} change */
  async setSettings(change) {
    this.me.settings = { ...this.me.settings, ...change };
    for (const name of ["theme", "language"]) if (change[name]) this.remember(name, change[name]);
    try {
      await call("PATCH", "/me/settings", change);
    } catch (error) {
      this.say(/** @type {any} */ (error).message, "bad");
    }
  }

  /** @param {string} theme */
  applyTheme(theme) {
    document.documentElement.dataset.theme = theme === "light" ? "light" : "dark";
  }

  /** Before anybody is signed in, this computer's last choice. @param {string} name */
  remembered(name) {
    try { return localStorage.getItem(`sightline.${name}`); } catch { return null; }
  }

  /** @param {string} name @param {string} value */
  remember(name, value) {
    try { localStorage.setItem(`sightline.${name}`, value); } catch { /* storage is refused: the choice lasts as long as the page */ }
  }
}

const app = new App();
app.start();
