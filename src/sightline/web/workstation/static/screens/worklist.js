// @ts-check
/** The studies of my queue; a page of them at a time, whatever their number. */
import { get, query } from "../kept/server.js";
import { button, el, fill } from "../page/dom.js";
import { moment, number, ofServer, t, titleOf } from "../page/words.js";

const STATES = ["", "open", "started", "submitted", "returned"];
const PAGE = 50;

/** @param {any} app @param {HTMLElement} place */
export async function show(app, place) {
  const tasks = app.me.tasks;
  const asked = { task: "", state: "", q: "", sort: "queue", limit: PAGE, after: "" };
  if (tasks.length === 1) asked.task = tasks[0].id;
  /** cursors of the pages before this one @type {string[]} */
  let trail = [];
  let turn = 0, closed = false;

  const body = el("tbody");
  const told = el("p", { class: "quiet", role: "status" });
  const tabs = el("div", { class: "tabs", role: "group", "aria-label": t("worklist.states") });
  const before = button(t("worklist.before"), () => { asked.after = trail.pop() || ""; load(); }, { class: "quiet" });
  const after = button(t("worklist.after"), () => { trail.push(asked.after); asked.after = after.dataset.cursor || ""; load(); }, { class: "quiet" });
  const start = button(t("worklist.start"), () => begin(), { class: "primary start", icon: "play" });
  const task = tasks.length > 1 ? el("select", { "aria-label": t("worklist.task"), on: { change: () => renew({ task: task.value }) } },
    el("option", { value: "", text: t("worklist.all_tasks") }), tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name }))) : null;
  const search = el("input", { type: "search", placeholder: t("worklist.search"), "aria-label": t("worklist.search"), dir: "auto", maxlength: 200, on: { input: () => {
    clearTimeout(timer);
    timer = setTimeout(() => renew({ q: search.value.trim() }), 250);
  } } });
  const sort = el("select", { "aria-label": t("worklist.sort"), on: { change: () => renew({ sort: sort.value }) } },
    ["queue", "touched", "title"].map((name) => el("option", { value: name, text: t(`worklist.sort_${name}`) })));
  /** @type {any} */
  let timer = 0;

  fill(place, el("div", { class: "list-head" }, el("div", {}, el("h1", { text: t("worklist.title") }), el("p", { class: "quiet", dir: "auto", text: t("worklist.of", { name: app.me.cohort.name, n: app.me.cohort.studies }) })), start),
    el("div", { class: "list-tools" }, tabs, search, task, sort),
    el("div", { class: "list-box", tabindex: 0, role: "region", "aria-label": t("worklist.title") }, el("table", { class: "list" }, el("caption", { class: "hidden-words", text: t("worklist.title") }), el("thead", {}, el("tr", {},
      ["number", "study", "views", "state", "marks", "touched"].map((name) => el("th", { scope: "col", text: t(`worklist.${name}`), class: name === "marks" ? "count-of" : name })))), body)),
    el("div", { class: "list-foot" }, before, told, after));

  /** @param {any} change */
  function renew(change) {
    Object.assign(asked, change, { after: "" });
    trail = [];
    load();
  }

  async function begin() {
    const at = app.turn;
    start.disabled = true;
    try {
      const next = await get(query("/worklist/next", { task: asked.task }));
      if (at !== app.turn) return;
      if (next.read) app.go(`read/${next.read}`);
      else app.say(t(next.waits ? "worklist.waits" : "worklist.all_done", { day: moment(next.waits) }));
    } catch (error) {
      app.say(/** @type {any} */ (error).message, "bad");
    }
    start.disabled = false;
  }

  /** @param {any} row */
  function line(row) {
    const open = () => { if (!row.unavailable) app.go(`read/${row.read}`); };
    const name = row.unavailable ? el("span", { dir: "auto", text: titleOf(row.title) }) : el("a", { href: `#/read/${row.read}`, dir: "auto", text: titleOf(row.title) });
    const flags = [row.warm_up ? t("worklist.warm_up") : "", row.pass > 1 ? t("worklist.pass", { n: row.pass }) : ""].filter(Boolean);
    return el("tr", { class: row.state, data: { read: row.read }, on: { dblclick: open } },
      el("td", { class: "number", text: number(row.ordinal + 1) }),
      el("td", { class: "study" }, name, flags.map((flag) => el("span", { class: "flag", text: flag })),
        row.unavailable ? el("span", { class: "bad small", text: `${t("worklist.unavailable")} ${ofServer(row.unavailable.message)} ${ofServer(row.unavailable.remedy)}` }) : null),
      el("td", { class: "views", text: [...new Set(row.views.filter(Boolean))].join(" · ") + (row.sides?.some(Boolean) ? `  ${[...new Set(row.sides.filter(Boolean))].join(" ")}` : "") || t("worklist.images", { n: row.images }) }),
      el("td", { class: "state" }, el("span", { class: `dot ${row.state}`, "aria-hidden": "true" }), t(`state.${row.state}`)),
      el("td", { class: "count-of", text: number(row.marks) }), el("td", { class: "touched", text: row.touched_at ? moment(row.touched_at) : "" }));
  }

  async function load() {
    const mine = ++turn;
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await get(query("/worklist", asked));
      if (mine !== turn || closed) return;
      const { counts } = answer;
      fill(tabs, STATES.map((state) => button(`${t(`state.${state || "all"}`)} ${number(counts[state || "all"] ?? 0)}`, () => renew({ state }), { class: "tab", "aria-pressed": asked.state === state })));
      fill(body, answer.rows.map(line));
      if (!answer.rows.length) fill(body, el("tr", {}, el("td", { colspan: 6, class: "empty" }, el("p", { text: counts.all ? t("worklist.none_here") : t("worklist.none_at_all") }))));
      before.disabled = asked.after === "";
      after.disabled = !answer.next;
      after.dataset.cursor = answer.next || "";
      const left = (counts.open || 0) + (counts.started || 0) + (counts.returned || 0);
      told.textContent = t("worklist.left", { n: left, all: counts.all || 0 });
      start.disabled = left === 0;
      place.querySelector(".list-box")?.scrollTo(0, 0);
    } catch (error) {
      const { message, remedy, status } = /** @type {any} */ (error);
      if (mine === turn && !closed) fill(body, el("tr", {}, el("td", { colspan: 6, class: "bad" }, el("p", { role: "alert", text: `${status === 0 ? t("app.no_server") : message} ${remedy}` }), button(t("again"), () => load()))));
    }
    place.removeAttribute("aria-busy");
  }

  app.keys.use("all", { keys: () => app.go("help") });
  document.title = `${t("worklist.title")} · sightline`;
  await load();
  // while the list is read, the first study comes
  Promise.all([get(query("/worklist/next", { task: asked.task })), import("../kept/study.js")]).then(([next, study]) => { if (next.read && !closed) study.fetchAhead(next.read); }).catch(() => {});
  return { close() { closed = true; clearTimeout(timer); } };
}
