// @ts-check
/** Pictures to look at, beside a column of words: what compare, gaze and adjudication have in common. */
import { get, query } from "../kept/server.js";
import { displayOf, storedOf, volumeOf } from "../kept/study.js";
import { button, el, fill } from "../page/dom.js";
import { ofServer, t, titleOf } from "../page/words.js";
import { fullRange, View } from "../picture/view.js";

export class Table {
  /** @param {any} app @param {HTMLElement} place */
  constructor(app, place) {
    this.app = app;
    this.turn = app.turn;
    /** @type {any[]} */
    this.views = [];
    this.hidden = false;
    this.panning = false;
    this.linking = false;
    this.grid = el("div", { class: "grid rows-1 columns-1" });
    this.under = el("div", { class: "strip" });
    this.side = el("aside", { class: "side", "aria-label": t("compare.side") });
    fill(place, el("div", { class: "split" }, el("div", { class: "table" }, this.grid, this.under), this.side));
    this.sayInstead(t("picture.coming"));
    this.host = { drag: () => "pan", down() {}, move() {}, up() {}, cancel() {}, wheel: (/** @type {any} */ view, /** @type {WheelEvent} */ event) => !event.ctrlKey && this.scroll(view, Math.sign(event.deltaY)) };
    this.closed = false;
  }

  /**
   * Hang views of pictures, linked in window, zoom and pan; of a volume its three planes.
   * @param {{image: any, label: string, plane?: any, volume?: any, paint: (context: CanvasRenderingContext2D, view: any) => void, hover?: (p: number[] | null, view: any) => void}[]} wanted
   */
  async hang(wanted) {
    if (wanted.some((one) => one.image.kind === "volume")) wanted = (await Promise.all(wanted.map((one) => this.planesOf(one)))).flat();
    if (this.closed) return;
    const kept = this.views[0]?.image.key === wanted[0]?.image.key ? this.views[0]?.state() : null;
    for (const view of this.views) view.close();
    this.views = wanted.map(({ image, label, plane, volume, paint, hover }) => {
      const view = /** @type {any} */ (new View({ label }));
      view.image = image;
      view.spacing = image.spacing_mm;
      view.host = this.host;
      volume?.hangIn(view, plane);
      view.paint = (/** @type {any} */ context, /** @type {any} */ one) => { paint(context, one); if (plane && !this.hidden) volume.paintCross(context, one); };
      view.corners.nw.textContent = label;
      view.addEventListener("zoom", () => this.link(view, "zoom"));
      view.addEventListener("window", () => this.link(view, "window"));
      view.addEventListener("hover", (/** @type {any} */ event) => hover?.(event.detail, view));
      return view;
    });
    const n = this.views.length, columns = n > 4 || this.views.some((view) => view.plane) ? 3 : n > 1 ? 2 : 1;
    this.grid.className = `grid rows-${n > columns ? 2 : 1} columns-${columns}`;
    fill(this.grid, this.views.map((view) => view.node));
    await Promise.all(this.views.map((view) => this.load(view, kept)));
  }

  /** A volume as its planes, or the words why not. @param {any} one what is wanted @returns {Promise<any[]>} */
  async planesOf(one) {
    if (one.image.kind !== "volume" || one.image.unavailable) return [one];
    try {
      const volume = await volumeOf(one.image);
      return volume.planes.map((plane) => ({ ...one, label: t(`plane.${plane.name}`), plane, volume }));
    } catch (error) {
      return [{ ...one, image: { ...one.image, unavailable: error } }];
    }
  }

  /** Marks as they lie in a view, those of a volume as they cut its slice. @param {any} view @param {any[]} marks @returns {any[]} */
  marksIn(view, marks) {
    const own = marks.filter((mark) => mark.image === view.image.key);
    return view.plane ? own.map((mark) => view.volume.cut(mark, view.plane, view.index)).filter(Boolean) : own;
  }

  /** The planes to the next of these boxes. @param {any[]} marks */
  goTo(marks) {
    for (const volume of new Set(this.views.map((view) => view.volume).filter(Boolean))) {
      const all = marks.filter((mark) => mark.image === volume.key && mark.start?.length === 3).map((mark) => volume.middle(mark));
      const at = all.findIndex((voxel) => voxel.every((/** @type {number} */ v, /** @type {number} */ i) => Math.floor(v) === volume.cross[i]));
      if (!all.length) continue;
      volume.moveTo(all[(at + 1) % all.length]);
      this.follow(volume);
    }
  }

  /** @param {any} view @param {number} step slices */
  scroll(view, step) {
    if (!view?.plane) return false;
    view.volume.step(view, step);
    this.follow(view.volume);
    return true;
  }

  /** @param {any} volume */
  follow(volume) {
    volume.follow(this.views, (/** @type {any} */ error) => this.app.say(error.message, "bad"));
  }

  /** @param {any} view @param {any} kept */
  async load(view, kept) {
    const { image } = view;
    view.resize();
    if (image.unavailable) { view.say(`${t("picture.cannot")} ${ofServer(image.unavailable.message)}`); return; }
    view.say(t("picture.coming"));
    try {
      if (view.plane) return void await view.volume.showIn(view);
      const raster = await displayOf(image);
      if (this.closed) return;
      view.show(raster);
      if (kept) view.take(kept);
      view.redraw(true);
      storedOf(image).then(({ facts, raster: stored }) => {
        const grey = facts.greyscale;
        if (!stored || this.closed) return;
        const first = grey.windows?.[0];
        view.setStored(stored, { slope: grey.slope ?? 1, intercept: grey.intercept ?? 0, invert: Boolean(grey.invert), padding: grey.padding || null },
          first ? { centre: first.centre, width: first.width, function: grey.function || "linear", invert: false } : fullRange(grey));
      }).catch(() => {});
    } catch (error) {
      view.say(`${t("picture.cannot")} ${/** @type {any} */ (error).message}`);
    }
  }

  /** Words in place of the pictures; the column beside them stays. @param {string} words */
  sayInstead(words) {
    fill(this.grid, el("div", { class: "view" }, el("div", { class: "view-message", role: "status", text: words })));
    return this;
  }

  /** What the server says of a study; else null, and why stands in place of the pictures. @param {string} path @returns {Promise<any>} */
  async ask(path) {
    try {
      return await get(path, { timeout: 120000 });
    } catch (error) {
      const { status, message, remedy } = /** @type {any} */ (error);
      this.sayInstead(status === 0 ? t("app.no_server") : `${message} ${remedy || ""}`);
      return null;
    }
  }

  /** Say in the head which study is shown, unless another screen came meanwhile. @param {string} title */
  sayStudy(title) {
    if (this.turn === this.app.turn) fill(this.app.centre, el("span", { class: "study-title", dir: "auto", text: titleOf(title) }));
  }

  /** @param {any} view @param {"zoom"|"window"} what */
  link(view, what) {
    if (this.linking || !view.read) return;
    this.linking = true;
    for (const other of this.views) {
      // other projections of a study are looked at for themselves
      if (other === view || !other.read || other.image.key !== view.image.key) continue;
      if (what === "zoom" && view.plane) continue;
      if (what === "window") { other.inverted = view.inverted; other.setWindow(view.window); continue; }
      other.fitted = false;
      other.turn = view.turn;
      other.zoom = view.zoom * (view.read.columns / other.read.columns);
      other.centre = [(view.centre[0] / view.read.rows) * other.read.rows, (view.centre[1] / view.read.columns) * other.read.columns];
      other.redraw();
    }
    this.linking = false;
  }

  redraw() {
    for (const view of this.views) view.redraw();
  }

  /** Keys that all such screens have. @param {string} scope @param {{[action: string]: (event: any) => any}} more */
  useKeys(scope, more) {
    // what a screen waited for may come when another one stands there
    if (this.turn !== this.app.turn) return;
    const first = () => this.views[0], held = () => this.views.find((view) => view.node === document.activeElement) || first();
    this.app.keys.use(scope, {
      pan: () => { this.panning = true; }, hide: () => { this.hidden = true; this.redraw(); },
      reset: () => { for (const view of this.views) view.reset(); }, fit: () => { for (const view of this.views) view.fit(); },
      one_to_one: () => first()?.oneToOne(), zoom_in: () => first()?.zoomBy(1.25), zoom_out: () => first()?.zoomBy(0.8),
      invert: () => { for (const view of this.views) { view.inverted = !view.inverted; view.redraw(); } },
      slice_up: () => this.scroll(held(), -1), slice_down: () => this.scroll(held(), 1),
      keys: () => this.app.go("help"), ...more,
    }, { pan: () => { this.panning = false; }, hide: () => { this.hidden = false; this.redraw(); } });
  }

  close() {
    this.closed = true;
    for (const view of this.views) view.close();
  }
}

/**
 * A list of studies to choose from: all of them where the role sees them, else those of one's queue that one may see.
 * @param {any} app
 * @param {string} screen first word of the address
 * @param {string} now key of the study that is open; where none is asked for, it is the first
 */
export function studyList(app, screen, now) {
  const list = el("div", { class: "pick-list" });
  const told = el("p", { class: "quiet small", role: "status" });
  const search = el("input", { type: "search", placeholder: t("worklist.search"), "aria-label": t("worklist.search"), dir: "auto" });
  /** @type {any} */
  let timer = 0;
  const draw = async () => {
    try {
      const all = app.me.may.includes("plan") || ["adjudicator", "viewer"].includes(app.me.reader.role), q = search.value.trim();
      const { rows } = await get(all ? query("/studies", { q, limit: 100 }) : query("/worklist", { seen: 1, q, limit: 100 }));
      now ||= q ? "" : rows[0]?.study;
      fill(list, rows.map((/** @type {any} */ row) => {
        const one = button("", () => app.go(`${screen}/${row.study}`), { "aria-pressed": row.study === now, data: { study: row.study } });
        fill(one, el("span", { dir: "auto", text: titleOf(row.title) }), el("span", { class: "quiet small", text: [...new Set((row.views || []).filter(Boolean))].join(" · ") }));
        return one;
      }));
      told.textContent = rows.length ? "" : t("compare.none");
    } catch (error) {
      told.textContent = /** @type {any} */ (error).message;
    }
    return now;
  };
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(draw, 250); });
  return { node: el("section", {}, el("h2", { text: t("compare.studies") }), search, list, told), draw };
}
