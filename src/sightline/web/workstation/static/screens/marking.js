// @ts-check
/** A study on the desk: its views hung, its marks, its answers, and on to the next one. */
import { Clock } from "../kept/clock.js";
import { call, get, query, ServerError } from "../kept/server.js";
import { displayOf, fetchAhead, openRead, storedOf, volumeOf } from "../kept/study.js";
import { button, el, fill } from "../page/dom.js";
import { moment, number, ofServer, t, titleOf } from "../page/words.js";
import { fullRange, View } from "../picture/view.js";
import { Desk } from "../tools/desk.js";
import { makePanel } from "./panel.js";

const GRIDS = /** @type {{[n: number]: [number, number]}} */ ({ 1: [1, 1], 2: [1, 2], 3: [1, 3], 4: [2, 2], 6: [2, 3] });
const LAYOUTS = [1, 2, 3, 4, 6];

/**
 * One window alone may change a read. `lost` is called when another one takes it over.
 * @param {string} id
 * @param {boolean} steal
 * @param {() => void} lost
 * @returns {Promise<(() => void) | null>} how to give it back; null where another window has it
 */
function hold(id, steal, lost) {
  return new Promise((resolve) => {
    navigator.locks.request(`sightline-read-${id}`, steal ? { steal: true } : { ifAvailable: true }, (lock) => {
      if (!lock) { resolve(null); return undefined; }
      return new Promise((release) => resolve(() => release(undefined)));
    }).catch(() => lost());
  });
}

class Marking {
  /** @param {any} app @param {HTMLElement} place @param {any} read @param {Desk} desk @param {Clock | null} clock */
  constructor(app, place, read, desk, clock) {
    this.app = app; this.place = place; this.read = read; this.desk = desk; this.clock = clock;
    /** @type {any[]} */
    this.all = [];
    this.linked = Boolean(app.me.settings.linked);
    this.linking = false;
    this.offset = 0;
    this.closed = false;
    this.ready = false;
    /** @type {any} */
    this.saveTimer = 0;
    this.grid = el("div", { class: "grid" });
    this.layout = 1;
    this.failures = 0;
    /** @type {any} */
    this.aidMap = null;
    /** what stands around the pictures, once they are hung @type {any} */
    this.panel = null;
    /** how to give the read back to other windows @type {(() => void) | null} */
    this.release = null;
  }

  /** Hang the views; their pictures come later. */
  async build() {
    const { desk, read } = this;
    const images = new Map(read.study.images.map((/** @type {any} */ image) => [image.key, image]));
    const order = [...(read.hanging?.order || []), ...images.keys()].filter((key, i, all) => all.indexOf(key) === i);
    for (const key of order) {
      const image = images.get(key);
      if (image.kind === "volume") {
        const planes = await this.planes(image);
        if (this.closed) return;
        this.all.push(...planes);
      } else this.all.push(this.view(image, [image.view, image.side].filter(Boolean).join(" ") || t("picture.view", { n: this.all.length + 1 })));
    }
    const hung = read.hanging ? read.hanging.rows * read.hanging.columns : this.all.length;
    const own = this.app.me.settings.layouts?.[String(this.all.length)];
    const volumes = this.all.some((view) => view.plane);
    this.layout = LAYOUTS.includes(own) ? own : volumes ? 3 : LAYOUTS.find((n) => n >= Math.min(hung, 6)) || 6;
    this.panel = makePanel(this);
    this.desktop = el("div", { class: "table" }, this.grid, this.panel.strip);
    fill(this.place, this.panel.rail, this.desktop, this.panel.aside);
    this.hang();
    this.activate(this.all[0]);
    desk.addEventListener("change", () => this.panel.update());
    desk.addEventListener("tell", (event) => {
      const { key, values, text } = /** @type {CustomEvent} */ (event).detail;
      this.app.say(text || t(key, values));
    });
    desk.addEventListener("key-pen", () => this.app.say(t("tool.key_pen", { key: this.app.keys.textOf("pen") })));
    desk.addEventListener("activate", (event) => this.activate(/** @type {CustomEvent} */ (event).detail));
    desk.addEventListener("slice", (event) => { const { view, step } = /** @type {CustomEvent} */ (event).detail; this.slice(view, step); });
    desk.addEventListener("cross", (event) => this.showCross(/** @type {CustomEvent} */ (event).detail));
    this.takeState();
    this.panel.update();
  }

  /** @param {any} image @param {string} label @returns {any} */
  view(image, label) {
    const view = /** @type {any} */ (new View({ label }));
    view.image = image;
    view.label = label;
    view.spacing = image.spacing_mm;
    view.spacingAt = image.spacing_at;
    view.host = this.desk;
    view.paint = (/** @type {any} */ context) => this.paint(context, view);
    view.corners.nw.textContent = label;
    view.corners.ne.textContent = (image.notes || []).map((/** @type {string} */ note) => t(`note.${note.replace(/[^a-z]/g, "_")}`)).join(" · ");
    view.addEventListener("active", () => this.activate(view));
    view.addEventListener("hover", (/** @type {any} */ event) => { view.corners.sw.textContent = event.detail ? this.under(view, event.detail) : ""; });
    view.addEventListener("window", () => { this.link(view, "window"); this.panel?.updateWindow(); this.later(); });
    view.addEventListener("zoom", () => { this.link(view, "zoom"); view.corners.se.textContent = view.read ? `${number(view.zoom * 100, 0)} %` : ""; this.later(); });
    view.node.addEventListener("focus", () => this.activate(view));
    return view;
  }

  /** @param {any} image */
  async planes(image) {
    if (image.unavailable) return [this.view(image, image.view || t("picture.volume"))];
    const volume = await volumeOf(image);
    return volume.planes.map((plane) => {
      const view = this.view(image, t(`plane.${plane.name}`));
      volume.hangIn(view, plane);
      return view;
    });
  }

  /** @param {any} view @param {[number, number]} p */
  under(view, p) {
    const value = view.valueAt(p);
    const place = t("picture.place", { row: number(p[0], 1), column: number(p[1], 1) });
    return value === "" ? place : `${place}  ${view.plane ? `${value} HU` : value}`;
  }

  /** Draw a view: its picture from memory, from the server, or the words why not. @param {any} view */
  async load(view) {
    const { image } = view;
    if (image.unavailable) { view.say(`${t("picture.cannot")} ${ofServer(image.unavailable.message)} ${ofServer(image.unavailable.remedy)}`); return; }
    if (view.loaded) return;
    view.loaded = true;
    view.say(t("picture.coming"));
    try {
      if (view.plane) await view.volume.showIn(view);
      else {
        const raster = await displayOf(image);
        if (this.closed) return;
        view.read = null;
        view.show(raster);
        if (view.kept) { view.take(view.kept); view.kept = null; }
      }
      view.redraw(true);
      this.isReady();
      if (!view.plane) this.loadStored(view).catch(() => {});
    } catch (error) {
      view.loaded = false;
      const { message, remedy, status } = /** @type {any} */ (error);
      if (this.closed) return;
      view.say(`${status === 0 ? t("app.no_server") : `${t("picture.cannot")} ${message}`} ${remedy || ""}`);
      if (status === 0 || status >= 500) { setTimeout(() => { if (!this.closed) this.load(view); }, 2000); return; }
      view.failed = true;
      if (!this.coming()) this.isReady();
    }
  }

  /** Whether no picture stands there yet, and one may come: nobody answers for what was not seen. */
  coming() {
    return !this.all.some((view) => view.read) && this.shown().some((view) => !view.failed && !view.image.unavailable);
  }

  /** @param {any} view */
  async loadStored(view) {
    const { facts, raster } = await storedOf(view.image);
    if (this.closed) return;
    view.facts = facts;
    view.spacing = facts.spacing_mm || view.spacing;
    view.spacingAt = facts.spacing_at || view.spacingAt;
    if (raster) {
      const grey = facts.greyscale;
      const scale = { slope: grey.slope ?? 1, intercept: grey.intercept ?? 0, invert: Boolean(grey.invert), padding: grey.padding || null };
      const first = grey.windows?.[0];
      const start = first ? { centre: first.centre, width: first.width, function: grey.function || "linear", invert: false }
        : fullRange(grey);
      view.setStored(raster, scale, start);
      if (view.window) view.setWindow(view.window);
    }
    this.panel?.updateWindow();
  }

  isReady() {
    if (this.ready || this.closed) return;
    this.ready = true;
    this.desk.readyAt = performance.now();
    this.clock?.add("ready", { last_input_ms: this.clock.lastInput });
    this.place.dataset.read = this.read.id;
    this.place.dataset.ready = "yes";
    if (this.desk.proposals.length) this.desk.make("shown", null, { what: "proposal", ids: this.desk.proposals.map((/** @type {any} */ one) => one.id) });
    if (this.read.aid) this.showAid();
    const next = this.read.next?.read || this.read.next;
    if (next) setTimeout(() => fetchAhead(typeof next === "string" ? next : next.id).catch(() => {}), 0);
  }

  async showAid() {
    const { aid } = this.read;
    this.desk.make("shown", null, { what: aid.condition === "answer and map" ? "map" : "answer", ids: [] });
    if (aid.condition !== "answer and map") return;
    const view = this.all[0], label = this.desk.task.classes.indexOf(aid.label);
    try {
      const { loadHeat } = await import("../picture/heat.js");
      this.aidMap = { view, draw: await loadHeat(view, aid.run, Math.max(0, label)) };
      view.redraw();
    } catch (error) {
      this.app.say(/** @type {any} */ (error).message, "bad");
    }
  }

  shown() {
    return this.all.slice(this.offset, this.offset + this.layout);
  }

  hang() {
    const [rows, columns] = GRIDS[this.layout];
    this.offset = Math.max(0, Math.min(this.offset, this.all.length - 1));
    const shown = this.shown();
    this.grid.className = `grid rows-${shown.length > columns ? rows : 1} columns-${Math.min(columns, shown.length)}`;
    fill(this.grid, shown.map((view) => view.node));
    this.desk.views = shown;
    for (const view of shown) { view.resize(); if (this.ready || view.loaded) this.load(view); }
  }

  nextLayout() {
    const fits = LAYOUTS.filter((n, i) => i === 0 || LAYOUTS[i - 1] < this.all.length);
    this.layout = fits[(fits.indexOf(this.layout) + 1) % fits.length];
    if (this.desk.active) {
      const at = this.all.indexOf(this.desk.active);
      this.offset = this.layout >= this.all.length ? 0 : Math.floor(at / this.layout) * this.layout;
    }
    this.hang();
    for (const view of this.shown()) this.load(view);
    this.app.setSettings({ layouts: { ...(this.app.me.settings.layouts || {}), [String(this.all.length)]: this.layout } });
    this.panel.update();
  }

  /** @param {number} n from 0 */
  focusView(n) {
    const view = this.all[n];
    if (!view) return false;
    if (!this.shown().includes(view)) { this.offset = Math.floor(n / this.layout) * this.layout; this.hang(); this.load(view); }
    this.activate(view);
    view.node.focus();
    return true;
  }

  /** @param {any} view */
  activate(view) {
    if (!view || this.desk.active === view) return;
    this.desk.active = view;
    if (this.desk.cursor && this.desk.cursor.view !== view) this.desk.cursor = null;
    for (const one of this.all) one.node.classList.toggle("active", one === view && this.all.length > 1);
    this.panel?.updateWindow();
  }

  toggleLink() {
    this.linked = !this.linked;
    this.app.setSettings({ linked: this.linked });
    if (this.linked && this.desk.active) { this.link(this.desk.active, "window"); this.link(this.desk.active, "zoom"); }
    this.panel.update();
  }

  /** @param {any} view @param {"window"|"zoom"} what */
  link(view, what) {
    if (!this.linked || this.linking) return;
    this.linking = true;
    for (const other of this.all) {
      if (other === view || !other.read || !view.read || Boolean(other.plane) !== Boolean(view.plane)) continue;
      if (what === "window") { other.inverted = view.inverted; other.setWindow(view.window); }
      else {
        const fit = view.read.columns / other.read.columns;
        other.fitted = false;
        other.zoom = view.zoom * fit;
        other.centre = [(view.centre[0] / view.read.rows) * other.read.rows, (view.centre[1] / view.read.columns) * other.read.columns];
        other.redraw();
      }
    }
    this.linking = false;
  }

  /** @param {any} context @param {any} view */
  paint(context, view) {
    if (this.aidMap?.view === view && !this.desk.hidden && !view.throughNetwork) this.aidMap.draw(context);
    this.desk.paint(context, view, view.throughNetwork || view);
    if (view.plane && !this.desk.hidden) view.volume.paintCross(context, view);
  }

  /** @param {any} view @param {number} step */
  slice(view, step) {
    if (!view?.plane) return;
    view.volume.step(view, step);
    this.showCross(view.volume);
  }

  /** @param {any} volume */
  showCross(volume) {
    volume.follow(this.all, (/** @type {any} */ error) => this.app.say(error.message, "bad"));
    this.later();
  }

  /** Its script comes when a network's input is asked for. @param {any} view */
  async toggleNetwork(view) {
    if (!view || view.plane) return;
    const made = await import("../picture/network.js").catch(() => this.app.say(t("app.no_server"), "bad"));
    await made?.toggleNetwork(this, view);
  }

  /** Keep windows, zoom and tool for the next visit, a little later. */
  later() {
    if (this.closed || !this.ready || this.desk.locked) return;
    clearTimeout(this.saveTimer);
    this.saveTimer = setTimeout(() => this.keepState(), 1200);
  }

  keepState() {
    clearTimeout(this.saveTimer);
    this.saveTimer = 0;
    const { desk } = this;
    const views = Object.fromEntries(this.all.filter((view) => view.read && !view.throughNetwork).map((view) => [view.plane ? `${view.image.key} ${view.plane.name}` : view.image.key, { ...view.state(), index: view.index }]));
    const state = { views, layout: this.layout, offset: this.offset, tool: desk.toolName, role: desk.role, markClass: desk.markClass, strokeWidth: desk.strokeWidth, brushRadius: desk.brushRadius, active: this.all.indexOf(desk.active), selected: desk.selectedId };
    return call("PUT", `/reads/${this.read.id}/view`, state).catch(() => {});
  }

  takeState() {
    const state = this.read.view || {}, { desk } = this;
    const hand = state.tool ? state : this.app.hand || {};
    if (hand.tool && (desk.tools[hand.tool] || hand.tool === "window") && desk.allowed(hand.tool)) desk.toolName = hand.tool;
    if (desk.task.roles.includes(hand.role)) desk.role = hand.role;
    if (desk.task.classes.includes(hand.markClass)) desk.markClass = hand.markClass;
    if (hand.strokeWidth >= 1 && hand.strokeWidth <= 200) desk.strokeWidth = hand.strokeWidth;
    if (hand.brushRadius >= 1 && hand.brushRadius <= 200) desk.brushRadius = hand.brushRadius;
    for (const view of this.all) {
      const kept = state.views?.[view.plane ? `${view.image.key} ${view.plane.name}` : view.image.key];
      if (!kept) continue;
      view.kept = kept;
      if (view.plane && Number.isInteger(kept.index) && kept.index >= 0 && kept.index < view.volume.facts.shape[view.plane.axis]) {
        view.index = kept.index;
        view.volume.cross[view.plane.axis] = kept.index;
      }
    }
    if (LAYOUTS.includes(state.layout) && state.layout !== this.layout) { this.layout = state.layout; this.offset = state.offset || 0; this.hang(); }
    if (this.all[state.active]) this.activate(this.all[state.active]);
    if (state.selected && desk.fold.marks.get(state.selected)?.removed === false) desk.selectedId = state.selected;
  }

  /** Enter: what is being drawn is finished first, then the study. */
  async submit() {
    const { desk } = this;
    if (desk.tool?.finish?.()) return;
    if (desk.readOnly()) { await this.goNext(); return; }
    if (this.coming()) { this.app.say(t("picture.coming"), "bad"); return; }
    await this.panel.flush();
    const aside = this.app.sync.aside(this.read.id).length;
    if (aside) { this.app.say(t("submit.refused", { n: aside }), "bad"); this.app.showRefused(); return; }
    const missing = desk.missing();
    if (missing) { this.app.say(t(`submit.missing_${missing}`), "bad"); this.panel.point(missing); return; }
    if (this.submitting) return;
    this.submitting = true;
    this.clock?.add("submit", this.clock.last());
    await desk.make("submit", null, {});
    this.app.submitted.add(this.read.id);
    await this.goNext();
  }

  async goNext() {
    const { desk } = this;
    this.app.hand = { tool: desk.toolName, role: desk.role, markClass: desk.markClass, strokeWidth: desk.strokeWidth, brushRadius: desk.brushRadius };
    if (this.closed) return;
    const next = this.read.next?.read?.id || this.read.next?.read || null;
    // what was fetched ahead may name a study that has been submitted since
    if (next && !this.app.submitted.has(next)) { this.app.go(`read/${next}`); return; }
    // the server must know of this submission before it says what comes next
    for (let i = 0; i < 40 && this.app.sync.unsent(this.read.id).length; i += 1) await new Promise((resolve) => { const done = () => { clearTimeout(timer); this.app.sync.removeEventListener("saved", done); resolve(null); }; const timer = setTimeout(done, 100); this.app.sync.addEventListener("saved", done); });
    try {
      const answer = await get(query("/worklist/next", { task: desk.task.id, after: this.read.id }));
      if (this.closed) return;
      if (answer.read && answer.read !== this.read.id) { this.app.go(`read/${answer.read}`); return; }
      this.app.say(t(answer.waits ? "worklist.waits" : "worklist.all_done", { day: moment(answer.waits) }));
    } catch (error) {
      if (this.closed) return;
      if (/** @type {ServerError} */ (error).status !== 0) this.app.say(/** @type {any} */ (error).message, "bad");
    }
    this.app.go("worklist");
  }

  goBack() {
    if (this.desk.tool?.back?.()) return;
    if (this.read.previous) this.app.go(`read/${this.read.previous}`);
    else this.app.say(t("submit.first"));
  }

  async close() {
    this.closed = true;
    await this.panel?.flush();
    if (this.saveTimer) this.keepState();
    this.clock?.close();
    this.release?.();
    for (const view of this.all) view.close();
  }
}

/** Keys of this screen. @param {Marking} screen */
function actions(screen) {
  const { desk, app } = screen;
  const view = () => desk.active;
  const shift = (/** @type {number} */ centre, /** @type {number} */ width) => {
    const now = view()?.currentWindow();
    if (now) view().setWindow({ ...now, centre: now.centre + centre * now.width * 0.05, width: Math.max(1, now.width * (1 + width * 0.08)) });
  };
  /** @type {{[action: string]: (event: any) => any}} */
  const acts = {
    pan: () => { desk.panning = true; },
    hide: () => { desk.hidden = true; desk.changed(); },
    reset: () => view()?.reset(),
    fit: () => view()?.fit(),
    one_to_one: () => view()?.oneToOne(),
    invert: () => { const one = view(); if (one) { one.inverted = !one.inverted; one.setWindow(one.window); } },
    rotate: () => view()?.rotate(),
    zoom_in: () => view()?.zoomBy(1.25), zoom_out: () => view()?.zoomBy(0.8),
    narrower: () => shift(0, -1), broader: () => shift(0, 1), brighter: () => shift(-1, 0), darker: () => shift(1, 0),
    network: () => screen.toggleNetwork(view()),
    layout: () => screen.nextLayout(), link: () => screen.toggleLink(),
    slice_up: () => screen.slice(view(), -1), slice_down: () => screen.slice(view(), 1),
    wider: () => desk.widen(1), thinner: () => desk.widen(-1), pen: () => desk.keyPen(),
    undo: () => desk.undo(), redo: () => desk.redo(),
    remove: () => (desk.selectedId ? desk.remove(desk.selectedId) : app.say(t("mark.select_first"))),
    next_mark: (event) => (event.target.closest?.(".view") ? desk.cycle(1) : false),
    previous_mark: (event) => (event.target.closest?.(".view") ? desk.cycle(-1) : false),
    next_corner: () => desk.nextCorner(), remove_corner: () => desk.removeCorner(),
    copy: () => desk.copy(),
    role: () => { const { roles } = desk.task; desk.setRole(roles[(roles.indexOf(desk.role) + 1) % roles.length]); },
    nothing: () => desk.answer("nothing", !desk.fold.answers.nothing),
    accept: () => { const one = desk.openProposals()[0]; if (one) desk.accept(one); else app.say(t("proposal.none")); },
    reject: () => { const one = desk.openProposals()[0]; if (one) desk.reject(one); else app.say(t("proposal.none")); },
    comment: () => screen.panel.point("comment"),
    submit: () => { screen.submit(); }, back: () => screen.goBack(),
    keys: () => app.go("help"),
    cancel: () => desk.letGo(),
  };
  for (const name of ["scribble", "box", "polygon", "brush", "eraser", "select", "window", "ruler"]) acts[`tool.${name}`] = () => desk.takeTool(name);
  for (let n = 1; n <= 9; n += 1) {
    acts[`class.${n}`] = () => desk.takeClass(n - 1);
    acts[`preset.${n}`] = () => screen.panel.takePreset(n - 1);
    acts[`view.${n}`] = () => screen.focusView(n - 1);
  }
  for (const [name, dr, dc] of /** @type {[string, number, number][]} */ ([["up", -1, 0], ["down", 1, 0], ["left", 0, -1], ["right", 0, 1]])) {
    for (const [id, step, screenStep] of /** @type {[string, number, number][]} */ ([["move", 1, 8], ["move_far", 10, 48]])) {
      acts[`${id}.${name}`] = () => {
        if (desk.moveCursor(dc * screenStep, dr * screenStep)) return true;
        if (!desk.selectedId) { view()?.panBy(-dc * screenStep * 4, -dr * screenStep * 4); return true; }
        desk.nudge(dr * step, dc * step);
        return true;
      };
    }
  }
  return { acts, ends: { pan: () => { desk.panning = false; }, hide: () => { desk.hidden = false; desk.changed(); } } };
}

/** @param {any} app @param {HTMLElement} place @param {string[]} rest */
export async function show(app, place, rest) {
  const id = rest[0], { turn } = app;
  const left = () => app.turn !== turn;
  const steal = app.steal === id;
  app.steal = null;
  let read = await openRead(id);
  if (left()) return null;
  /** @type {Marking | null} */
  let screen = null;
  const lost = () => {
    if (!screen || screen.closed) return;
    screen.desk.locked = true;
    screen.clock?.close();
    screen.desk.changed();
    banner();
  };
  const release = read.read_only ? null : await hold(id, steal, lost);
  if (left()) { release?.(); return null; }
  // who leaves from here on gives the study back, whatever is still coming
  if (release) app.screen = { close: release };
  // what another window has not sent lies on this computer's disk
  if (release) await app.sync.resume(id);
  if (steal) read = await get(`/reads/${id}`);
  if (left()) return null;
  const unsent = app.sync.unsent(id), there = new Set(read.ops.map((/** @type {any} */ op) => op.id));
  const ops = [...read.ops, ...unsent.filter((/** @type {any} */ op) => !there.has(op.id))];
  const client = crypto.randomUUID();
  app.alive.add(client);
  const clock = release ? new Clock(app.me.reader.id, id, client, app.outbox) : null;
  const desk = new Desk(read, { sync: app.sync, clock, outbox: app.outbox, client, readOnly: !release, ops });
  screen = new Marking(app, place, read, desk, clock);
  screen.release = release;
  const handle = { close: () => { app.sync?.removeEventListener("saved", banner); app.sync?.removeEventListener("refused", update); return screen?.close(); }, marking: screen };
  app.screen = handle;
  const note = el("div", { class: "banner", role: "status", hidden: true });

  const update = () => screen?.panel.update();
  function banner() {
    if (!screen) return;
    const parts = [];
    if (read.read_only) parts.push(el("span", { text: `${ofServer(read.read_only.message)} ${ofServer(read.read_only.remedy)}` }));
    else if (desk.locked) parts.push(el("span", { text: t("tabs.elsewhere") }), button(t("tabs.take_over"), () => { app.steal = id; app.route(); }));
    else if (desk.fold.submitted) parts.push(el("span", { text: t("submit.closed") }));
    if (read.returned) parts.push(el("span", { text: t("submit.returned") }), el("q", { dir: "auto", text: read.returned.comment }));
    if (!app.outbox) parts.push(el("strong", { class: "bad", text: t("saving.no_storage") }));
    if (read.study.images.some((/** @type {any} */ image) => image.changed)) parts.push(el("strong", { class: "bad", text: t("picture.changed") }));
    fill(note, parts);
    note.hidden = parts.length === 0;
  }

  fill(app.centre, el("h1", { class: "study-title", dir: "auto", text: titleOf(read.study.title) }), el("span", { class: "quiet count", text: t("submit.count", { n: String(read.ordinal + 1), of: String(read.of) }) }));
  document.title = `${read.study.title} · sightline`;
  await screen.build();
  if (screen.closed) return handle;
  const { acts, ends } = actions(screen);
  app.keys.use("mark", acts, ends);
  // above the pictures, never on them
  screen.desktop.prepend(note);
  banner();
  app.sync.addEventListener("saved", banner);
  app.sync.addEventListener("refused", update);
  const draft = !desk.readOnly() && app.outbox ? await app.outbox.draftOf(id).catch(() => null) : null;
  if (screen.closed) return handle;
  if (draft?.mark) {
    const done = (/** @type {boolean} */ take) => {
      if (take) desk.make("add", draft.image, { mark: { id: crypto.randomUUID(), role: desk.role, label: null, name: "", source: "drawn", ...draft.mark } });
      desk.keepDraft(null);
      offer.remove();
    };
    const offer = el("div", { class: "banner offer", role: "alert" }, el("span", { text: t("draft.offer") }), button(t("draft.take"), () => done(true), { class: "primary" }), button(t("draft.leave"), () => done(false)));
    screen.desktop.prepend(offer);
  }
  screen.all[0]?.node.focus({ preventScroll: true });
  await Promise.all(screen.shown().map((view) => screen?.load(view)));
  return handle;
}
