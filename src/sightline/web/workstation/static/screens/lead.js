// @ts-check
/** For the lead: readers, tasks, plans, progress, export, the audit chain. Each with the command that does the same. */
import { call, get, query } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { duration, moment, number, ofServer, t } from "../page/words.js";

const ROLES = ["reader", "adjudicator", "lead", "viewer"];

/** @param {any} app @param {HTMLElement} place */
export async function show(app, place) {
  document.title = `${t("menu.lead")} · sightline`;
  const said = (/** @type {any} */ error) => app.say(`${error.message} ${error.remedy || ""}`, "bad");
  const command = (/** @type {string | null | undefined} */ text) => (text ? el("p", { class: "small quiet" }, t("lead.same"), " ", el("code", { dir: "ltr", text })) : null);
  const only = (/** @type {string} */ what, /** @type {string} */ text) => el("p", { class: "small quiet" }, t(what), " ", el("code", { dir: "ltr", text }));
  const table = (/** @type {string} */ name, /** @type {string[]} */ heads, /** @type {any[]} */ rows) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, el("table", {}, el("caption", { class: "hidden-words", text: name }), el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", text: head })))), el("tbody", {}, rows)));
  const parts = { readers: el("section", { class: "card" }), plan: el("section", { class: "card" }), progress: el("section", { class: "card" }), exports: el("section", { class: "card" }), audit: el("section", { class: "card" }) };
  fill(place, el("div", { class: "page" }, el("h1", { text: t("menu.lead") }), parts.progress, parts.plan, parts.readers, parts.exports, parts.audit));
  let tasks = (await get("/tasks")).rows;
  let task = tasks[0]?.id || "";
  /** @type {any[]} */
  let readers = [];
  /** @type {any} */
  let timer = 0;
  let closed = false;

  async function drawProgress() {
    const choice = el("select", { "aria-label": t("worklist.task"), on: { change: () => { task = choice.value; drawProgress().catch(said); } } }, tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name, selected: one.id === task })));
    const answer = task ? await get(query("/progress", { task })) : { rows: [] };
    const states = ["open", "started", "submitted", "returned"];
    fill(parts.progress, el("div", { class: "row" }, el("h2", { text: t("lead.progress") }), el("span", { class: "stretch" }), choice),
      answer.rows.length ? table(t("lead.progress"), [t("lead.reader"), ...states.map((one) => t(`state.${one}`)), t("lead.active"), t("lead.unsure")], answer.rows.map((/** @type {any} */ row) => el("tr", {}, el("th", { scope: "row", dir: "auto", text: row.reader }), states.map((one) => el("td", { text: number(row[one]) })),
        el("td", { text: row.active_s_median === null ? "–" : `${duration(row.active_s_median)}${row.active_s_iqr ? ` (${duration(row.active_s_iqr[0])} – ${duration(row.active_s_iqr[1])})` : ""}` }), el("td", { text: number(row.unsure) })))) : el("p", { class: "quiet", text: t("lead.no_reads") }),
      el("p", { class: "small quiet", text: t("help.clock_text") }), command(answer.command));
  }

  function drawPlan() {
    const name = el("input", { maxlength: 200, required: true, dir: "auto" }), which = el("select", {}, tasks.map((/** @type {any} */ one) => el("option", { value: one.id, text: one.name })));
    const who = readers.filter((one) => !one.disabled_at).map((one) => { const box = el("input", { type: "checkbox", value: one.name }); return { box, node: el("label", { class: "inline" }, box, el("span", { dir: "auto", text: one.display || one.name })) }; });
    const passes = el("input", { type: "number", class: "short", min: 1, max: 9, value: 1 }), seed = el("input", { type: "number", class: "short", min: 0, value: 0 }), warm = el("input", { type: "number", class: "short", min: 0, value: 0 });
    const order = el("select", {}, ["random", "given", "active"].map((one) => el("option", { value: one, text: t(`lead.order_${one}`) })));
    const reveal = el("select", {}, ["never", "after submit", "assisted"].map((one) => el("option", { value: one, text: t(`lead.reveal_${one.replace(" ", "_")}`) })));
    const askLabel = el("input", { type: "checkbox", checked: true }), askSure = el("input", { type: "checkbox" }), study = el("input", { type: "checkbox" });
    const tools = ["scribble", "box", "polygon", "brush"].map((one) => { const box = el("input", { type: "checkbox", checked: true, value: one }); return { box, node: el("label", { class: "inline" }, box, el("span", { text: t(`tool.${one}`) })) }; });
    const make = async () => {
      try {
        await call("POST", "/tasks", { name: name.value.trim(), kind: "mark", tools: tools.filter((one) => one.box.checked).map((one) => one.box.value), reveal: reveal.value, study_mode: study.checked, ask: { label: askLabel.checked, confidence: askSure.checked } });
        tasks = (await get("/tasks")).rows;
        app.say(t("lead.task_made"));
        drawPlan();
        await drawProgress();
      } catch (error) { said(error); }
    };
    const deal = async () => {
      try {
        const { reads } = await call("POST", "/plans", { task: which.value, readers: who.filter((one) => one.box.checked).map((one) => one.box.value), passes: Number(passes.value), order: order.value, seed: Number(seed.value), warm_up: Number(warm.value) });
        app.say(t("lead.dealt", { n: reads }));
        task = which.value;
        await drawProgress();
      } catch (error) { said(error); }
    };
    fill(parts.plan, el("h2", { text: t("lead.plan") }), el("div", { class: "row end" }, field(t("worklist.task"), which), field(t("lead.passes"), passes), field(t("lead.order"), order), field(t("lead.seed"), seed), field(t("lead.warm_up"), warm)),
      el("div", { class: "row", role: "group", "aria-label": t("lead.readers") }, who.length ? who.map((one) => one.node) : el("span", { class: "quiet", text: t("lead.no_readers") })), el("div", { class: "row" }, button(t("lead.deal"), deal, { class: "primary", disabled: !tasks.length })),
      command("sightline reads plan KEEP --task NAME --readers A B --passes 2 --order random --seed 0"), only("lead.only_listed", "sightline reads plan KEEP --task NAME --readers A B --order listed --studies FILE"),
      el("details", {}, el("summary", { text: t("lead.new_task") }), el("div", { class: "row end" }, field(t("lead.task_name"), name), field(t("lead.reveal"), reveal)), el("div", { class: "row" }, tools.map((one) => one.node)),
        el("div", { class: "row" }, el("label", { class: "inline" }, askLabel, el("span", { text: t("lead.ask_label") })), el("label", { class: "inline" }, askSure, el("span", { text: t("lead.ask_confidence") })), el("label", { class: "inline" }, study, el("span", { text: t("lead.study_mode") }))), el("div", { class: "row" }, button(t("lead.make_task"), make))));
  }

  async function drawReaders() {
    readers = (await get("/readers")).rows;
    offer();
    const name = el("input", { maxlength: 100, dir: "auto", autocomplete: "off" }), display = el("input", { maxlength: 100, dir: "auto", autocomplete: "off" }), word = el("input", { type: "password", minlength: 12, autocomplete: "new-password" });
    const role = el("select", {}, ROLES.map((one) => el("option", { value: one, text: t(`role.${one}`) })));
    const add = async () => {
      try {
        await call("POST", "/readers", { name: name.value.trim(), display: display.value.trim() || name.value.trim(), role: role.value, password: word.value });
        app.say(t("lead.reader_added"));
        await drawReaders();
        drawPlan();
      } catch (error) { said(error); }
    };
    const whose = el("select", {}, readers.map((one) => el("option", { value: one.id, text: one.name }))), newWord = el("input", { type: "password", minlength: 12, autocomplete: "new-password" });
    const change = async () => {
      try {
        await call("PATCH", `/readers/${whose.value}`, { password: newWord.value });
        newWord.value = "";
        app.say(t("lead.password_set"));
      } catch (error) { said(error); }
    };
    const turn = async (/** @type {any} */ one) => {
      try {
        await call("PATCH", `/readers/${one.id}`, { disabled: !one.disabled_at });
        await drawReaders();
        drawPlan();
      } catch (error) { said(error); }
    };
    fill(parts.readers, el("h2", { text: t("lead.readers") }), table(t("lead.readers"), [t("signin.name"), t("lead.shown_as"), t("lead.role"), t("lead.since"), t("lead.account")], readers.map((one) => el("tr", {}, el("th", { scope: "row", dir: "auto", text: one.name }), el("td", { dir: "auto", text: one.display }), el("td", { text: t(`role.${one.role}`) }), el("td", { text: moment(one.made_at) }),
      el("td", {}, one.id === app.me.reader.id ? t("lead.you") : button(one.disabled_at ? t("lead.enable") : t("lead.disable"), () => turn(one), { class: "quiet", "aria-label": `${one.disabled_at ? t("lead.enable") : t("lead.disable")}: ${one.name}` }))))),
    el("div", { class: "row end" }, field(t("signin.name"), name), field(t("lead.shown_as"), display), field(t("lead.role"), role), field(t("signin.password"), word), button(t("lead.add"), add)), command("sightline readers add KEEP NAME --role reader"),
    el("details", {}, el("summary", { text: t("lead.new_password") }), el("div", { class: "row end" }, field(t("lead.reader"), whose), field(t("lead.new_password"), newWord), button(t("lead.set_password"), change)), command("sightline readers passwd KEEP NAME")));
  }

  const as = el("select", { on: { change: () => offer() } }, ["folder", "coco", "dicom"].map((one) => el("option", { value: one, text: t(`lead.as_${one}`) }))), of = el("select");
  // COCO holds marks as drawn, no merged ones
  const offer = () => fill(of, ["each", "consensus", "union", "intersection", "majority", "staple"].slice(0, as.value === "coco" ? 1 : 6).map((one) => el("option", { value: one, text: t(`lead.of_${one}`) })), readers.map((one) => el("option", { value: one.name, text: one.display || one.name })));

  async function drawExports() {
    const { rows } = await get("/exports");
    const go = async () => {
      try {
        await call("POST", "/exports", { as: as.value, readers: of.value });
        await drawExports();
      } catch (error) { said(error); }
    };
    fill(parts.exports, el("h2", { text: t("lead.export") }), el("div", { class: "row end" }, field(t("lead.as"), as), field(t("lead.of"), of), button(t("lead.export_go"), go, { class: "primary" })),
      rows.length ? table(t("lead.export"), [t("lead.name"), t("lead.state"), t("lead.left_out"), t("lead.file")], rows.map((/** @type {any} */ one) => el("tr", {}, el("th", { scope: "row", dir: "ltr", text: one.path_name || one.id }), el("td", { text: `${t(`export.${one.state}`)} ${ofServer(one.message || "")} ${ofServer(one.remedy || "")}` }), el("td", { text: one.left_out === null || one.left_out === undefined ? "" : number(one.left_out) }), el("td", {}, one.state === "done" ? el("a", { href: `/api/v1/exports/${one.id}/archive`, download: "", text: t("lead.download") }) : null)))) : null,
      command(rows[0]?.command || "sightline marks export KEEP DEST --as folder --readers each"),
      only("lead.only_retrain", "sightline marks retrain KEEP --run RUN --cohort COHORT --out OUT"), only("lead.only_import", "sightline marks import KEEP SRC --as coco --reader NAME"));
    clearTimeout(timer);
    if (!closed && rows.some((/** @type {any} */ one) => one.state === "running")) timer = setTimeout(() => drawExports().catch(said), 1000);
  }

  /** @param {number | ""} [after] @param {any[]} [before] */
  async function drawAudit(after = "", before = []) {
    const answer = await get(query("/audit", { after, limit: 30 }));
    const rows = [...before, ...answer.rows];
    const result = el("p", { role: "status", class: "small" });
    const verify = async () => {
      try {
        const { rows: n, broken } = await call("POST", "/verify", {});
        result.className = broken ? "small bad" : "small good";
        result.textContent = broken ? t("lead.broken", { where: broken.where, row: broken.row }) : t("lead.sound", { n });
      } catch (error) { said(error); }
    };
    fill(parts.audit, el("div", { class: "row" }, el("h2", { text: t("lead.audit") }), el("span", { class: "stretch" }), button(t("lead.verify"), verify)), result,
      table(t("lead.audit"), ["seq", "at", "who", "what", "object"].map((one) => t(`lead.audit_${one}`)), rows.map((/** @type {any} */ one) => el("tr", {}, el("td", { text: number(one.seq) }), el("td", { text: moment(one.at) }), el("td", { dir: "auto", text: readers.find((other) => other.id === one.who)?.name || one.who || "–" }), el("td", { text: one.what }), el("td", { dir: "ltr", text: one.object || "" })))),
      answer.next ? button(t("lead.older"), () => drawAudit(answer.next, rows).catch(said)) : null, command("sightline marks verify KEEP"));
  }

  await drawReaders();
  drawPlan();
  await Promise.all([drawProgress().catch(said), drawExports().catch(said), drawAudit().catch(said)]);
  return { close: () => { closed = true; clearTimeout(timer); } };
}
