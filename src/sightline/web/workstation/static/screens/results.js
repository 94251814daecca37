// @ts-check
/** Evaluations as their files state them; nothing is computed again here. */
import { get } from "../kept/server.js";
import { button, el, fill } from "../page/dom.js";
import { number, ofServer, t } from "../page/words.js";

/** @param {any} app @param {HTMLElement} place */
export async function show(app, place) {
  document.title = `${t("menu.results")} · sightline`;
  const { tables, reports } = await get("/results");
  const frame = el("div");
  const open = (/** @type {any} */ report) => fill(frame, el("h2", { dir: "auto", text: report.title }), el("iframe", { src: report.url, sandbox: "", title: t("results.report", { name: report.title }) }));
  fill(place, el("div", { class: "page" }, el("h1", { text: t("menu.results") }),
    tables.length || reports.length ? null : [el("p", { class: "quiet", text: t(app.me.runs.length ? "results.not_evaluated" : "results.none") }), el("pre", { dir: "ltr", text: app.me.runs.length ? "sightline evaluate RUN --cohort COHORT" : "sightline workstation COHORT --run RUN" })],
    tables.map((/** @type {any} */ one) => el("section", { class: "card scroll", tabindex: 0, role: "region", "aria-label": one.title }, el("h2", { dir: "auto", text: [one.title, one.split].filter(Boolean).join(" · ") }), el("table", {}, el("caption", { class: "hidden-words", text: one.title }),
      el("thead", {}, el("tr", {}, one.columns.map((/** @type {string} */ name) => el("th", { scope: "col", text: ofServer(name) })))), el("tbody", {}, one.rows.map((/** @type {any[]} */ row) => el("tr", {}, row.map((value) => el("td", { dir: "auto", text: typeof value === "number" ? number(value, Number.isInteger(value) ? 0 : 3) : value ?? "–" })))))))),
    reports.length ? el("section", { class: "card" }, el("h2", { text: t("results.reports") }), el("div", { class: "row" }, reports.map((/** @type {any} */ one) => button(one.title, () => open(one))))) : null, frame));
}
