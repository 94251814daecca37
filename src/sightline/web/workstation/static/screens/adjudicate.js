// @ts-check
/** Marks of several readers without their names: take one, merge them, draw a new one, or send the study back. */
import { call, get, query } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { number, t, titleOf } from "../page/words.js";
import { drawMark, HUES } from "../picture/paint.js";
import { Table } from "./table.js";

const HOW = ["union", "intersection", "majority", "staple"];

/** Comments that were typed and not sent yet, by person and study: they are there again when the study is. @type {Map<string, string>} */
const typed = new Map();
window.addEventListener("beforeunload", (event) => { if (typed.size) event.preventDefault(); });

/** @param {any} app @param {HTMLElement} place @param {string[]} rest task, study */
export async function show(app, place, rest) {
  document.title = `${t("menu.adjudicate")} · sightline`;
  const tasks = (await get("/tasks")).rows.filter((/** @type {any} */ one) => one.kind === "mark" || one.kind === "adjudicate");
  const task = tasks.find((/** @type {any} */ one) => one.id === rest[0]) || tasks[0];
  const table = new Table(app, place);
  const own = el("div", { class: "side-own" });
  fill(table.side, el("h1", { text: t("menu.adjudicate") }));
  if (!task) return table.sayInstead(t("agreement.none"));
  const { rows, hidden } = await get(query("/adjudicate", { task: task.id }), { timeout: 120000 }), lacking = hidden ? t("agreement.hidden", { n: hidden }) : "";
  const choice = el("select", { "aria-label": t("worklist.task"), on: { change: () => app.go(`adjudicate/${choice.value}`) } }, tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name, selected: one === task })));
  const study = rest[1] || rows.find((/** @type {any} */ row) => row.state === "open")?.study || rows[0]?.study;
  const list = el("div", { class: "pick-list" }, rows.map((/** @type {any} */ row) => {
    const one = button("", () => app.go(`adjudicate/${task.id}/${row.study}`), { "aria-pressed": row.study === study });
    fill(one, el("span", { class: `dot ${row.state === "done" ? "done" : ""}`, "aria-hidden": "true" }), el("span", { dir: "auto", text: titleOf(row.title) }), el("span", { class: "stretch" }), el("span", { class: "quiet small", text: `${t(`adjudicate.${row.state}`)} ${number(row.disagreement, 2)}` }));
    return one;
  }));
  fill(table.side, el("h1", { text: t("menu.adjudicate") }), tasks.length > 1 ? choice : null, own, el("section", {}, el("h2", { text: t("adjudicate.list") }), list, el("p", { class: "quiet small", text: lacking })));
  if (!study) return table.sayInstead(lacking || t("adjudicate.none"));
  const answer = await table.ask(query(`/adjudicate/${study}`, { task: task.id }));
  if (!answer) return table;
  const { images, outcome } = answer, volumes = images.some((/** @type {any} */ one) => one.kind === "volume");
  /** `nothing`: drawn anew, there is nothing. What was taken from a read that is open again cannot be taken again. */
  const state = { how: outcome?.how === "take" && !outcome.letter ? "" : outcome?.how || "", letter: outcome?.letter || null, marks: /** @type {any[]} */ (outcome?.marks || []), nothing: outcome?.how === "drawn" && !outcome.marks.length, shown: "all", drawing: /** @type {any} */ (null) };
  const letters = answer.marks.map((/** @type {any} */ one) => one.letter);
  /** @param {string} letter or all */
  const marksOf = (letter) => answer.marks.filter((/** @type {any} */ one) => letter === "all" || letter === one.letter).flatMap((/** @type {any} */ one) => one.marks);
  const mine = `${app.me.reader.id} ${task.id} ${study}`;
  const comment = el("textarea", { rows: 2, maxlength: 10000, dir: "auto", value: typed.get(mine) ?? outcome?.comment ?? "", on: { input: () => { if (comment.value === (outcome?.comment ?? "")) typed.delete(mine); else typed.set(mine, comment.value); } } });
  const label = el("select", {}, el("option", { value: "", text: "–" }), task.classes.map((/** @type {string} */ name) => el("option", { value: name, text: name, selected: name === outcome?.label })));

  /** @param {any} context @param {any} view */
  function paint(context, view) {
    if (table.hidden || !view.read) return;
    answer.marks.forEach((/** @type {any} */ one, /** @type {number} */ i) => {
      if (state.shown !== "all" && state.shown !== one.letter) return;
      for (const mark of table.marksIn(view, one.marks)) drawMark(context, view, mark, { colour: HUES[i % HUES.length], name: one.letter, thin: state.marks.length > 0 });
    });
    for (const mark of table.marksIn(view, state.marks)) drawMark(context, view, mark, { colour: "#ffffff", name: [t("adjudicate.outcome"), t(`role_of_mark.${mark.role}`), mark.label].filter(Boolean).join(" · ") });
    if (state.drawing?.view === view) drawMark(context, view, boxOf(state.drawing), { colour: "#ffffff" });
  }

  /** No further than the picture. @param {any} drawing */
  function boxOf({ view, a, b }) {
    const corner = (/** @type {(...n: number[]) => number} */ end) => [view.read.rows, view.read.columns].map((top, axis) => Math.max(0, Math.min(top, end(a[axis], b[axis]))));
    return { kind: "box", role: task.roles[0] || "focus", start: corner(Math.min), stop: corner(Math.max) };
  }

  table.host = /** @type {any} */ ({
    ...table.host,
    drag: () => (table.panning ? "pan" : state.how === "drawn" ? "tool" : "pan"),
    down: (/** @type {any} */ view, /** @type {any} */ _, /** @type {any} */ p) => { if (view.read) state.drawing = { view, a: p, b: p }; },
    move: (/** @type {any} */ view, /** @type {any} */ _, /** @type {any[]} */ many) => { if (state.drawing) { state.drawing.b = many.at(-1).p; view.redraw(); } },
    up: (/** @type {any} */ view) => {
      state.nothing = false;
      const box = state.drawing && boxOf(state.drawing);
      state.drawing = null;
      if (box && box.stop[0] - box.start[0] >= 1 && box.stop[1] - box.start[1] >= 1) state.marks = [...state.marks, { id: crypto.randomUUID(), image: view.image.key, label: null, source: "drawn", ...box }];
      view.redraw();
      draw();
    },
    cancel: (/** @type {any} */ view) => { state.drawing = null; view.redraw(); },
  });

  const said = (/** @type {any} */ error) => app.say(`${error.message} ${error.remedy}`, "bad");
  const drawAll = () => { table.redraw(); draw(); };

  /** @param {string} how */
  async function merge(how) {
    try {
      const marks = [];
      for (const image of images) {
        const merged = await call("POST", `/adjudicate/${study}/merge`, { task: task.id, image: image.key, how }, { timeout: 120000 });
        for (const mark of merged.marks) marks.push({ ...mark, image: image.key });
      }
      // what readers marked is never decided away by a merge of which nothing is left
      const lost = !marks.length && answer.marks.some((/** @type {any} */ one) => one.marks.length);
      Object.assign(state, { how: lost ? "" : how, letter: null, marks });
      if (!marks.length) app.say(t("adjudicate.empty"), lost ? "bad" : "plain");
    } catch (error) {
      said(error);
    }
    drawAll();
  }

  /** @param {any} one */
  function take(one) {
    Object.assign(state, { how: "take", letter: one.letter, marks: one.marks });
    table.goTo(one.marks);
    label.value = one.label || "";
    drawAll();
  }

  async function settle() {
    try {
      await call("POST", "/outcomes", { task: task.id, study, how: state.how, letter: state.letter, marks: state.how === "take" ? [] : state.marks, nothing: state.how === "drawn" && state.nothing, label: label.value || null, comment: comment.value }, { headers: { "If-Match": outcome?.etag || "*" } });
      typed.delete(mine);
      app.say(t("adjudicate.stored"));
      const next = rows.find((/** @type {any} */ row) => row.state === "open" && row.study !== study);
      app.go(next ? `adjudicate/${task.id}/${next.study}` : `adjudicate/${task.id}/${study}`);
    } catch (error) {
      said(error);
    }
  }

  /** @param {string} letter */
  async function sendBack(letter) {
    if (!comment.value.trim()) { app.say(t("adjudicate.say_why"), "bad"); comment.focus(); return; }
    try {
      await call("POST", `/adjudicate/${study}/return`, { task: task.id, letter, comment: comment.value });
      typed.delete(mine);
      app.say(t("adjudicate.returned", { letter }));
      app.route();
    } catch (error) {
      said(error);
    }
  }

  function draw() {
    const nothing = el("input", { type: "checkbox", checked: state.nothing, on: { change: () => { state.nothing = nothing.checked; if (nothing.checked) state.marks = []; drawAll(); } } });
    const shownChoice = (/** @type {string} */ one, /** @type {string} */ words) => button(words, () => { state.shown = one; table.goTo(marksOf(one)); drawAll(); }, { class: "tab", "aria-pressed": state.shown === one });
    fill(own, el("section", {}, el("h2", { text: t("adjudicate.marks") }), el("div", { class: "tabs", role: "group", "aria-label": t("adjudicate.marks") }, shownChoice("all", t("agreement.all")), letters.map((/** @type {string} */ one) => shownChoice(one, one))),
      answer.marks.map((/** @type {any} */ one) => el("div", { class: "blinded" }, el("strong", { text: one.letter }), el("span", { dir: "auto", text: [one.label, one.confidence === null || one.confidence === undefined ? "" : `${number(one.confidence)} %`].filter(Boolean).join(" · ") }), el("span", { class: "quiet small", text: t("compare.n_marks", { n: one.marks.length }) }),
        el("span", { class: "row" }, button(t("adjudicate.take"), () => take(one), { "aria-pressed": state.how === "take" && state.letter === one.letter, "aria-label": t("adjudicate.take_one", { letter: one.letter }) }), button(t("adjudicate.return"), () => sendBack(one.letter), { class: "quiet", "aria-label": t("adjudicate.return_one", { letter: one.letter }) })),
        one.comment ? el("q", { class: "quiet small", dir: "auto", text: one.comment }) : null))),
    volumes ? el("p", { class: "quiet small", text: t("adjudicate.volume") }) : el("section", {}, el("h2", { text: t("adjudicate.merge") }), el("div", { class: "row" }, HOW.map((how) => button(t(`adjudicate.${how}`), () => merge(how), { "aria-pressed": state.how === how })), button(t("adjudicate.drawn"), () => { Object.assign(state, { how: "drawn", letter: null, marks: [], nothing: false }); drawAll(); }, { "aria-pressed": state.how === "drawn" })), state.how === "drawn" ? [el("p", { class: "quiet small", text: t("adjudicate.draw_how") }), el("label", { class: "inline" }, nothing, el("span", { text: t("answer.nothing") }))] : null),
    el("section", {}, field(t("answer.label"), label), field(t("answer.comment"), comment), button(t("adjudicate.settle"), () => settle(), { class: "primary", disabled: !state.how || (state.how === "drawn" && !state.marks.length && !state.nothing) })));
  }

  table.useKeys("compare", {});
  fill(table.under, el("span", { class: "quiet small", text: t("compare.hide", { key: app.keys.textOf("hide") }) }));
  draw();
  await table.hang(images.slice(0, 6).map((/** @type {any} */ image) => ({ image, label: [image.view, image.side].filter(Boolean).join(" "), paint })));
  table.goTo(marksOf("all"));
  return table;
}
