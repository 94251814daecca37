// @ts-check
/** What two networks looked at, beside what an expert marked: same picture, linked, the numbers under the cursor. */
import { getArray, query } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { number, t } from "../page/words.js";
import { drawHeat, heatCanvas, heatColour, mapValue } from "../picture/heat.js";
import { drawMark, HUES } from "../picture/paint.js";
import { studyList, Table } from "./table.js";

/** @param {any} app @param {HTMLElement} place @param {string[]} rest */
export async function show(app, place, rest) {
  document.title = `${t("menu.compare")} · sightline`;
  const table = new Table(app, place);
  const list = studyList(app, "compare", rest[0]);
  const own = el("div", { class: "side-own" });
  fill(table.side, el("h1", { text: t("menu.compare") }), own, list.node);
  const study = await list.draw();
  if (!study) return table.sayInstead(t("compare.none"));
  const answer = await table.ask(query(`/compare/${study}`, { task: rest[1] }));
  if (!answer) return table;
  table.sayStudy(answer.title);
  const state = { image: /** @type {any} */ (null), index: 0, on: true, opacity: 0.9, smooth: true, common: false, swapped: false };
  /** those that have maps of the image @type {any[]} */
  let runs = [];

  /** Another image, of which other runs may have maps. @param {any} image */
  function choose(image) {
    const before = runs.length ? classOf(runs[0]).name : null;
    state.image = image;
    runs = answer.runs.filter((/** @type {any} */ run) => run.images?.[image.key]);
    // first what the run found, or would find: a map of nothing to see says little
    const at = runs[0]?.images[image.key].classes.findIndex((/** @type {any} */ one) => (before === null ? one.index === runs[0].finding : one.name === before));
    state.index = Math.max(0, at ?? 0);
  }

  /** @type {Map<string, any>} */
  const maps = new Map();
  const values = el("div", { class: "row", role: "status", "aria-live": "off" });

  /** @param {any} run */
  const classOf = (run) => { const { classes } = run.images[state.image.key]; return classes[Math.min(state.index, classes.length - 1)]; };

  /** @param {any} run @returns {any} */
  function scale(run) {
    const ends = (/** @type {any} */ one) => { const c = classOf(one); return [c.low, c.high]; };
    const all = state.common ? runs.map(ends) : [ends(run)];
    return { low: Math.min(...all.map((/** @type {number[]} */ e) => e[0])), high: Math.max(...all.map((/** @type {number[]} */ e) => e[1])) };
  }

  /** @param {any} run */
  async function fetchMap(run) {
    const { index } = classOf(run), name = `${run.key} ${state.image.key} ${index}`;
    if (!maps.has(name)) {
      const raw = await getArray(`/images/${state.image.key}/maps/${run.key}/${index}`);
      const said = raw.headers.get("X-Frame");
      const frame = said ? said.split(",").map(Number) : run.images[state.image.key].frame;
      maps.set(name, raw.waiting ? null : { shape: raw.shape.slice(-2), values: raw.values, frame, heats: new Map() });
    }
    return maps.get(name);
  }

  /** @param {any} run */
  function heatOf(run) {
    const map = maps.get(`${run.key} ${state.image.key} ${classOf(run).index}`);
    if (!map) return null;
    const { low, high } = scale(run), name = `${state.smooth} ${low} ${high}`;
    if (!map.heats.has(name)) map.heats.set(name, heatCanvas(map, { low, high, smooth: state.smooth }));
    return { map, heat: map.heats.get(name) };
  }

  /** Whose marks they are. @param {any} one */
  const nameOf = (one) => (one.who === "me" ? t("compare.me") : one.who);

  /** @param {any} context @param {any} view @param {any} run */
  function paint(context, view, run) {
    if (table.hidden || !view.read) return;
    const shown = state.swapped && runs.length === 2 ? runs[1 - runs.indexOf(run)] : run;
    const found = run && state.on && !(state.swapped && runs.length === 1) ? heatOf(shown) : null;
    if (found) drawHeat(context, view, found.map, found.heat, state.opacity, state.smooth);
    answer.marks.forEach((/** @type {any} */ one, /** @type {number} */ i) => {
      for (const mark of table.marksIn(view, one.marks)) drawMark(context, view, mark, { thin: true, colour: answer.marks.length > 1 ? HUES[i % HUES.length] : undefined, name: answer.marks.length > 1 ? nameOf(one) : "" });
    });
    if (run) view.corners.ne.textContent = state.swapped && runs.length === 2 ? shown.title : "";
  }

  /** @param {number[] | null} p */
  function hover(p) {
    fill(values, runs.map((/** @type {any} */ run) => {
      const map = maps.get(`${run.key} ${state.image.key} ${classOf(run).index}`);
      const value = p && map ? mapValue(map, p) : null;
      return el("span", { class: "inline", data: { run: run.key, value: value === null ? "" : String(value) } }, el("span", { class: "quiet", text: run.title }), el("strong", { text: value === null ? "–" : number(value, 4) }));
    }), p ? el("span", { class: "quiet", text: t("picture.place", { row: number(p[0], 1), column: number(p[1], 1) }) }) : null);
  }

  async function hang() {
    hover(null);
    const wanted = runs.length ? runs.map((/** @type {any} */ run) => ({ image: state.image, label: run.title, paint: (/** @type {any} */ c, /** @type {any} */ v) => paint(c, v, run), hover }))
      : [{ image: state.image, label: state.image.view || "", paint: (/** @type {any} */ c, /** @type {any} */ v) => paint(c, v, null), hover }];
    await Promise.all([table.hang(wanted), fetchAll()]);
  }

  /** @param {any} run */
  function numbersOf(run) {
    const all = run.images[state.image.key].numbers || [];
    if (!all.length) return el("p", { class: "quiet small", text: t("compare.no_numbers") });
    return el("table", { class: "numbers" }, el("caption", { class: "hidden-words", text: run.title }), el("thead", {}, el("tr", {}, ["mark", "pointing", "energy", "iou"].map((name) => el("th", { scope: "col", text: t(`compare.${name}`) })))),
      el("tbody", {}, all.map((/** @type {any} */ one) => el("tr", {}, el("th", { scope: "row", text: [one.class, one.role && t(`role_of_mark.${one.role}`)].filter(Boolean).join(" · ") }),
        ["pointing", "energy", "iou"].map((name) => el("td", {}, number(one[name], 2), el("br"), el("span", { class: "quiet", text: t("compare.chance", { n: number(one[`${name}_chance`], 2) }) })))))));
  }

  function drawSide() {
    const { classes } = runs[0]?.images[state.image.key] || { classes: [] };
    const ramp = el("canvas", { class: "bar", width: 256, height: 1, role: "img", "aria-label": t("compare.scale") });
    const context = ramp.getContext("2d");
    for (let i = 0; i < 256; i += 1) { const [r, g, b] = heatColour(i / 255); context.fillStyle = `rgb(${r} ${g} ${b})`; context.fillRect(i, 0, 1, 1); }
    const choice = el("select", { on: { change: () => { state.index = Number(choice.value); fetchAll(); } } }, classes.map((/** @type {any} */ one, /** @type {number} */ i) => el("option", { value: i, text: one.name, selected: i === state.index })));
    const strength = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.opacity, on: { input: () => { state.opacity = Number(strength.value); table.redraw(); } } });
    const check = (/** @type {"on"|"smooth"|"common"} */ name) => { const box = el("input", { type: "checkbox", checked: state[name], on: { change: () => { state[name] = box.checked; drawAll(); } } }); return el("label", { class: "inline" }, box, el("span", { text: t(`compare.${name}`) })); };
    const { images } = answer;
    fill(own, images.length > 1 ? el("section", {}, el("h2", { text: t("compare.view") }), el("div", { class: "row" }, images.map((/** @type {any} */ one) => button([one.view, one.side].filter(Boolean).join(" ") || t("picture.view", { n: one.ordinal + 1 }), () => { choose(one); hang(); }, { "aria-pressed": one === state.image, class: "tab" })))) : null,
      runs.length ? el("section", {}, el("h2", { text: t("compare.map") }), field(t("compare.class"), choice), field(t("compare.opacity"), strength), check("on"), check("smooth"), runs.length > 1 ? check("common") : null, ramp,
        runs.map((/** @type {any} */ run) => { const { low, high } = scale(run); return el("p", { class: "small quiet", text: t(state.common ? "compare.scale_common" : "compare.scale_own", { name: run.title, low: number(low, 3), high: number(high, 3) }) }); })) : el("p", { class: "quiet", text: t(!app.me.runs.length ? "compare.no_runs" : answer.runs.length ? "compare.no_map" : "compare.waiting") }),
      runs.map((/** @type {any} */ run) => el("section", {}, el("h2", { dir: "auto", text: run.title }), el("p", {}, el("strong", { dir: "auto", text: run.label ?? "" }), run.probabilities ? ` ${number(Math.max(...run.probabilities), 3)}` : ""), numbersOf(run))),
      el("section", {}, el("h2", { text: t("compare.marks") }), answer.marks.length ? el("ul", {}, answer.marks.map((/** @type {any} */ one) => el("li", {}, el("strong", { dir: "auto", text: nameOf(one) }), ` ${one.label ?? ""} `, el("span", { class: "quiet", text: t("compare.n_marks", { n: one.marks.length }) })))) : el("p", { class: "quiet", text: t("compare.no_marks") })),
      app.me.runs.filter((/** @type {any} */ run) => run.state !== "ready").map((/** @type {any} */ run) => el("p", { class: "run-state", text: `${run.title}: ${t(`run.${run.state}`, { done: run.done, of: run.of })} ${run.message || ""}` })));
  }

  function drawAll() {
    table.redraw();
    drawSide();
  }

  async function fetchAll() {
    await Promise.all(runs.map((/** @type {any} */ run) => fetchMap(run).catch((error) => app.say(error.message, "bad"))));
    drawAll();
  }

  /** @param {number} step */
  function changeClass(step) {
    const n = runs[0]?.images[state.image.key].classes.length || 0;
    if (n) { state.index = (state.index + step + n) % n; fetchAll(); }
  }

  table.useKeys("compare", {
    map: () => { state.on = !state.on; drawAll(); }, blink: () => { state.swapped = !state.swapped; table.redraw(); },
    fainter: () => { state.opacity = Math.max(0, state.opacity - 0.1); drawAll(); }, stronger: () => { state.opacity = Math.min(1, state.opacity + 0.1); drawAll(); },
    map_class_before: () => changeClass(-1), map_class_after: () => changeClass(1), smooth: () => { state.smooth = !state.smooth; drawAll(); },
  });
  fill(table.under, values, el("span", { class: "stretch" }), button(t("compare.blink"), () => { state.swapped = !state.swapped; table.redraw(); }, { class: "quiet", title: app.keys.textOf("blink") }), el("span", { class: "quiet small", text: t("compare.hide", { key: app.keys.textOf("hide") }) }));
  choose(answer.images.find((/** @type {any} */ one) => one.kind !== "volume") || answer.images[0]);
  await hang();
  return table;
}
