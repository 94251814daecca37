// @ts-check
/** Marks of several readers without their names: take one, merge them, draw a new one, or send the study back. */
import { call, get, query } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { number, t, titleOf } from "../page/words.js";
import { drawMark, HUES, INK } from "../picture/paint.js";
import { Table } from "./table.js";

const HOW = ["union", "intersection", "majority", "staple"];

/** @param {any} app @param {HTMLElement} place @param {string[]} rest task, study */
export async function show(app, place, rest) {
  document.title = `${t("menu.adjudicate")} · sightline`;
  const tasks = (await get("/tasks")).rows.filter((/** @type {any} */ one) => one.kind === "mark" || one.kind === "adjudicate");
  const task = tasks.find((/** @type {any} */ one) => one.id === rest[0]) || tasks[0];
  const table = new Table(app, place);
  const own = el("div", { class: "side-own" });
  const nothing = (/** @type {string} */ words) => { fill(table.grid, el("div", { class: "view" }, el("div", { class: "view-message", text: words }))); fill(table.side, el("h1", { text: t("menu.adjudicate") }), own); return { close: () => table.close() }; };
  if (!task) return nothing(t("agreement.none"));
  const { rows } = await get(query("/adjudicate", { task: task.id }), { timeout: 120000 });
  const choice = el("select", { "aria-label": t("worklist.task"), on: { change: () => app.go(`adjudicate/${choice.value}`) } }, tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name, selected: one === task })));
  const study = rest[1] || rows.find((/** @type {any} */ row) => row.state === "open")?.study || rows[0]?.study;
  const list = el("div", { class: "pick-list" }, rows.map((/** @type {any} */ row) => {
    const one = button("", () => app.go(`adjudicate/${task.id}/${row.study}`), { "aria-pressed": row.study === study });
    fill(one, el("span", { class: `dot ${row.state === "done" ? "done" : ""}`, "aria-hidden": "true" }), el("span", { dir: "auto", text: titleOf(row.title) }), el("span", { class: "stretch" }), el("span", { class: "quiet small", text: `${t(`adjudicate.${row.state}`)} ${number(row.disagreement, 2)}` }));
    return one;
  }));
  fill(table.side, el("h1", { text: t("menu.adjudicate") }), tasks.length > 1 ? choice : null, own, el("section", {}, el("h2", { text: t("adjudicate.list") }), list));
  if (!study) return nothing(t("adjudicate.none"));
  const answer = await get(query(`/adjudicate/${study}`, { task: task.id }), { timeout: 120000 });
  const images = answer.images.filter((/** @type {any} */ one) => one.kind !== "volume");
  /** @type {{how: string, letter: string | null, marks: any[], shown: string, drawing: any}} */
  const state = { how: answer.outcome?.how || "", letter: answer.outcome?.letter || null, marks: answer.outcome?.marks || [], shown: "all", drawing: null };
  const letters = answer.marks.map((/** @type {any} */ one) => one.letter);
  const comment = el("textarea", { rows: 2, maxlength: 10000, dir: "auto", value: answer.outcome?.comment || "" });
  const label = el("select", {}, el("option", { value: "", text: "–" }), task.classes.map((/** @type {string} */ name) => el("option", { value: name, text: name, selected: name === answer.outcome?.label })));

  /** @param {any} context @param {any} view */
  function paint(context, view) {
    if (table.hidden || !view.read) return;
    answer.marks.forEach((/** @type {any} */ one, /** @type {number} */ i) => {
      if (state.shown !== "all" && state.shown !== one.letter) return;
      for (const mark of one.marks) if (mark.image === view.image.key) drawMark(context, view, mark, { colour: HUES[i % HUES.length], name: one.letter, thin: state.marks.length > 0 });
    });
    for (const mark of state.marks) if (mark.image === view.image.key) drawMark(context, view, mark, { colour: "#ffffff", selected: false, name: t("adjudicate.outcome") });
    if (state.drawing?.view === view) drawMark(context, view, boxOf(state.drawing), { colour: "#ffffff" });
  }

  /** @param {any} drawing */
  const boxOf = (drawing) => ({ kind: "box", role: task.roles[0] || "focus", start: [Math.min(drawing.a[0], drawing.b[0]), Math.min(drawing.a[1], drawing.b[1])], stop: [Math.max(drawing.a[0], drawing.b[0]), Math.max(drawing.a[1], drawing.b[1])] });

  table.host = /** @type {any} */ ({
    drag: () => (table.panning ? "pan" : state.how === "drawn" ? "tool" : "pan"),
    down: (/** @type {any} */ view, /** @type {any} */ _, /** @type {any} */ p) => { state.drawing = { view, a: p, b: p }; },
    move: (/** @type {any} */ view, /** @type {any} */ _, /** @type {any[]} */ many) => { if (state.drawing) { state.drawing.b = many.at(-1).p; view.redraw(); } },
    up: (/** @type {any} */ view) => {
      const box = state.drawing && boxOf(state.drawing);
      state.drawing = null;
      if (box && box.stop[0] - box.start[0] >= 1 && box.stop[1] - box.start[1] >= 1) state.marks = [...state.marks, { id: crypto.randomUUID(), image: view.image.key, label: null, source: "drawn", ...box }];
      view.redraw();
      draw();
    },
    cancel: (/** @type {any} */ view) => { state.drawing = null; view.redraw(); },
  });

  /** @param {string} how */
  async function merge(how) {
    try {
      const marks = [];
      for (const image of images) {
        const { mark } = await call("POST", `/adjudicate/${study}/merge`, { task: task.id, image: image.key, how });
        if (mark) marks.push({ ...mark, image: image.key });
      }
      Object.assign(state, { how, letter: null, marks });
      if (!marks.length) app.say(t("adjudicate.empty"));
    } catch (error) {
      app.say(`${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}`, "bad");
    }
    table.redraw();
    draw();
  }

  /** @param {any} one */
  function take(one) {
    Object.assign(state, { how: "take", letter: one.letter, marks: one.marks });
    label.value = one.label || "";
    table.redraw();
    draw();
  }

  async function settle() {
    try {
      await call("POST", "/outcomes", { task: task.id, study, how: state.how, letter: state.letter, marks: state.how === "take" ? [] : state.marks, label: label.value || null, comment: comment.value }, { headers: { "If-Match": answer.outcome?.etag || "*" } });
      app.say(t("adjudicate.stored"));
      const next = rows.find((/** @type {any} */ row) => row.state === "open" && row.study !== study);
      app.go(next ? `adjudicate/${task.id}/${next.study}` : `adjudicate/${task.id}/${study}`);
    } catch (error) {
      app.say(`${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}`, "bad");
    }
  }

  /** @param {string} letter */
  async function sendBack(letter) {
    if (!comment.value.trim()) { app.say(t("adjudicate.say_why"), "bad"); comment.focus(); return; }
    try {
      await call("POST", `/adjudicate/${study}/return`, { task: task.id, letter, comment: comment.value });
      app.say(t("adjudicate.returned", { letter }));
      app.route();
    } catch (error) {
      app.say(`${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}`, "bad");
    }
  }

  function draw() {
    const shownChoice = (/** @type {string} */ one, /** @type {string} */ words) => button(words, () => { state.shown = one; table.redraw(); draw(); }, { class: "tab", "aria-pressed": state.shown === one });
    fill(own, el("section", {}, el("h2", { text: t("adjudicate.marks") }), el("div", { class: "tabs", role: "group", "aria-label": t("adjudicate.marks") }, shownChoice("all", t("agreement.all")), letters.map((/** @type {string} */ one) => shownChoice(one, one))),
      answer.marks.map((/** @type {any} */ one) => el("div", { class: "blinded" }, el("strong", { text: one.letter }), el("span", { dir: "auto", text: [one.label, one.confidence === null || one.confidence === undefined ? "" : `${number(one.confidence)} %`].filter(Boolean).join(" · ") }), el("span", { class: "quiet small", text: t("compare.n_marks", { n: one.marks.length }) }),
        el("span", { class: "row" }, button(t("adjudicate.take"), () => take(one), { "aria-pressed": state.how === "take" && state.letter === one.letter, "aria-label": t("adjudicate.take_one", { letter: one.letter }) }), button(t("adjudicate.return"), () => sendBack(one.letter), { class: "quiet", "aria-label": t("adjudicate.return_one", { letter: one.letter }) })),
        one.comment ? el("q", { class: "quiet small", dir: "auto", text: one.comment }) : null))),
    el("section", {}, el("h2", { text: t("adjudicate.merge") }), el("div", { class: "row" }, HOW.map((how) => button(t(`adjudicate.${how}`), () => merge(how), { "aria-pressed": state.how === how })), button(t("adjudicate.drawn"), () => { Object.assign(state, { how: "drawn", letter: null, marks: [] }); table.redraw(); draw(); }, { "aria-pressed": state.how === "drawn" })), state.how === "drawn" ? el("p", { class: "quiet small", text: t("adjudicate.draw_how") }) : null),
    el("section", {}, field(t("answer.label"), label), field(t("answer.comment"), comment), button(t("adjudicate.settle"), () => settle(), { class: "primary", disabled: !state.how })));
  }

  table.useKeys("compare", {});
  fill(table.under, el("span", { class: "quiet small", text: t("compare.hide", { key: app.keys.textOf("hide") }) }));
  draw();
  await table.hang(images.slice(0, 6).map((/** @type {any} */ image) => ({ image, label: [image.view, image.side].filter(Boolean).join(" "), paint })));
  void INK;
  return { close: () => table.close() };
}
