// @ts-check
/** How far readers agree, with intervals over patients; and where they do not. */
import { get, query } from "../kept/server.js";
import { el, fill, svg } from "../page/dom.js";
import { number, ofServer, t, titleOf } from "../page/words.js";

const COUNTED = ["patients", "studies", "images", "readers", "pairs", "targets", "answers", "counted", "both empty", "one empty"];

/** @param {any} one an estimate with an interval, drawn between 0 (or -1) and 1 */
function interval(one) {
  if (!Number.isFinite(one.value) || one.value > 1.001 || one.value < -1) return el("span");
  const least = Math.min(one.value, one.low ?? 0) < 0 ? -1 : 0;
  const x = (/** @type {number} */ v) => 6 + 168 * Math.max(0, Math.min(1, (v - least) / (1 - least)));
  return svg("svg", { class: "interval", viewBox: "0 0 180 16", "aria-hidden": "true" },
    svg("line", { x1: 6, x2: 174, y1: 8, y2: 8, stroke: "var(--line)", "stroke-width": 1 }),
    least < 0 ? svg("line", { x1: x(0), x2: x(0), y1: 3, y2: 13, stroke: "var(--quiet)", "stroke-width": 1 }) : null,
    Number.isFinite(one.low) && Number.isFinite(one.high) ? svg("line", { x1: x(one.low), x2: x(one.high), y1: 8, y2: 8, stroke: "var(--accent)", "stroke-width": 3, "stroke-linecap": "round" }) : null,
    svg("circle", { cx: x(one.value), cy: 8, r: 5, fill: "var(--accent)" }));
}

/** @param {any} app @param {HTMLElement} place @param {string[]} rest */
export async function show(app, place, rest) {
  document.title = `${t("menu.agreement")} · sightline`;
  const tasks = app.me.tasks.length ? app.me.tasks : (await get("/tasks").catch(() => ({ rows: [] }))).rows;
  let task = rest[0] || tasks[0]?.id || "", names = false;
  const body = el("div", { class: "screen-body" });
  const choice = el("select", { "aria-label": t("worklist.task"), on: { change: () => { task = choice.value; load(); } } }, tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name, selected: one.id === task })));
  const named = el("input", { type: "checkbox", on: { change: () => { names = named.checked; load(); } } });
  fill(place, el("div", { class: "page" }, el("div", { class: "row" }, el("h1", { text: t("menu.agreement") }), el("span", { class: "stretch" }), tasks.length > 1 ? choice : null, el("label", { class: "inline" }, named, el("span", { text: t("agreement.names") }))), body));

  async function load() {
    if (!task) { fill(body, el("p", { class: "quiet", text: t("agreement.none") })); return; }
    fill(body, el("p", { class: "quiet", role: "status", text: t("picture.coming") }));
    let answer;
    try {
      answer = await get(query("/agreement", { task, names: names ? 1 : "" }), { timeout: 120000 });
    } catch (error) {
      fill(body, el("p", { class: "bad", role: "alert", text: `${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}` }));
      return;
    }
    const { estimates, matrix, studies, readers, hidden } = answer;
    fill(body, el("div", { class: "page-in" },
      hidden ? el("p", { class: "quiet", text: t("agreement.hidden", { n: hidden }) }) : null,
      estimates.length ? el("section", { class: "card scroll", tabindex: 0, role: "region", "aria-label": t("agreement.estimates") }, el("h2", { text: t("agreement.estimates") }), el("table", {}, el("caption", { class: "hidden-words", text: t("agreement.estimates") }),
        el("thead", {}, el("tr", {}, ["measure", "who", "value", "between", "n"].map((name) => el("th", { scope: "col", text: t(`agreement.${name}`) })))),
        el("tbody", {}, estimates.map((/** @type {any} */ one) => el("tr", {}, el("th", { scope: "row", text: [ofServer(one.name).replace("mean rim distance", t("agreement.rim_distance")), one.class].filter(Boolean).join(" · ") }), el("td", { dir: "auto", text: Array.isArray(one.pair) ? one.pair.join(" – ") : one.pair && one.pair !== "all" ? one.pair : t("agreement.all") }),
          el("td", { text: number(one.value, 3) }), el("td", {}, one.low === null || one.low === undefined ? el("span", { class: "quiet small", text: ofServer(one.why || "") }) : [interval(one), el("span", { class: "small quiet", text: t("agreement.from_to", { low: number(one.low, 3), high: number(one.high, 3) }) })]),
          el("td", { class: "small quiet", text: Object.entries(one.n || {}).map(([what, n]) => `${number(/** @type {number} */ (n))} ${known(what)}`).join(", ") })))))) : hidden ? null : el("p", { class: "quiet", text: t("agreement.none") }),
      matrix?.values?.length ? el("section", { class: "card scroll", tabindex: 0, role: "region", "aria-label": t("agreement.matrix") }, el("h2", { text: `${t("agreement.matrix")}: ${matrix.measure}` }), el("table", { class: "matrix" }, el("caption", { class: "hidden-words", text: t("agreement.matrix") }),
        el("thead", {}, el("tr", {}, el("td"), readers.map((/** @type {string} */ name) => el("th", { scope: "col", dir: "auto", text: name })))),
        el("tbody", {}, matrix.values.map((/** @type {any[]} */ row, /** @type {number} */ i) => el("tr", {}, el("th", { scope: "row", dir: "auto", text: readers[i] }), row.map((value) => el("td", { text: number(value, 3) }))))))) : null,
      studies?.length ? el("section", { class: "card scroll", tabindex: 0, role: "region", "aria-label": t("agreement.studies") }, el("h2", { text: t("agreement.studies") }), el("table", {}, el("caption", { class: "hidden-words", text: t("agreement.studies") }),
        el("thead", {}, el("tr", {}, ["study", "dice", "labels", "disagreement"].map((name) => el("th", { scope: "col", text: t(`agreement.${name}`) })))),
        el("tbody", {}, studies.map((/** @type {any} */ one) => el("tr", {}, el("td", {}, el("a", { href: `#/compare/${one.study}`, dir: "auto", text: titleOf(one.title) })), el("td", { text: number(one.dice, 3) }), el("td", { dir: "auto", text: (one.labels || []).map((/** @type {any} */ label) => label ?? "–").join(" · ") }), el("td", {}, meter(one.disagreement)))))) ) : null));
  }

  /** @param {string} what */
  const known = (what) => (COUNTED.includes(what) ? t(`agreement.n_${what.replace(" ", "_")}`) : what);

  /** @param {number} value */
  function meter(value) {
    const bar = el("span");
    bar.style.inlineSize = `${Math.round(100 * Math.max(0, Math.min(1, value || 0)))}%`;
    return el("div", { class: "row" }, el("div", { class: "meter", "aria-hidden": "true" }, bar), number(value, 2));
  }

  await load();
}
