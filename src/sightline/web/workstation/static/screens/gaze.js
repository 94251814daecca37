// @ts-check
/** How a gaze moved: replay on a time line, trail, fixations, density. At a time t the dot is the last sample at or before t. */
import { getArray, query } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { number, t } from "../page/words.js";
import { drawHeat, heatCanvas } from "../picture/heat.js";
import { HUES } from "../picture/paint.js";
import { studyList, Table } from "./table.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const TRAIL_S = 1.5;

/** The last sample at or before a time; -1 before the first. @param {number[][]} samples @param {number} time */
export function sampleAt(samples, time) {
  let low = 0, high = samples.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (samples[middle][2] <= time) low = middle + 1; else high = middle;
  }
  return low - 1;
}

/** @param {any} app @param {HTMLElement} place @param {string[]} rest study, image */
export async function show(app, place, rest) {
  document.title = `${t("menu.gaze")} · sightline`;
  const table = new Table(app, place);
  const list = studyList(app, "gaze", rest[0]);
  const own = el("div", { class: "side-own" });
  fill(table.side, el("h1", { text: t("menu.gaze") }), own, list.node);
  const study = await list.draw();
  if (!study) return table.sayInstead(t("compare.none"));
  const answer = await table.ask(`/studies/${study}`);
  if (!answer) return table;
  table.sayStudy(answer.title);
  const { images } = answer;
  const image = images.find((/** @type {any} */ one) => one.key === rest[1]) || images.find((/** @type {any} */ one) => one.has_gaze) || images[0];
  const gaze = image.has_gaze === false ? { recordings: [] } : await table.ask(`/gaze/${image.key}`);
  if (!gaze) return table;
  const { recordings } = gaze;
  const state = { time: 0, playing: false, speed: 1, trail: true, fixations: true, density: false, shown: new Set(recordings.map((/** @type {any} */ one) => one.id)), degrees: 1 };
  const end = Math.max(0, ...recordings.map((/** @type {any} */ one) => { const last = one.samples.at(-1); return last ? last[2] + last[3] : 0; }));
  /** @type {Map<string, any>} */
  const densities = new Map();
  let frame = 0, before = 0;

  /** @param {any} context @param {any} view */
  function paint(context, view) {
    if (table.hidden || !view.read) return;
    if (state.density) for (const one of densities.values()) if (state.shown.has(one.id)) drawHeat(context, view, one.map, one.heat, 0.85, true);
    recordings.forEach((/** @type {any} */ one, /** @type {number} */ k) => {
      if (!state.shown.has(one.id)) return;
      const colour = HUES[k % HUES.length], at = sampleAt(one.samples, state.time);
      if (at < 0) return;
      if (state.trail) {
        const first = Math.max(0, sampleAt(one.samples, state.time - TRAIL_S));
        context.strokeStyle = colour;
        context.lineWidth = 1.6;
        context.globalAlpha = 0.75;
        context.beginPath();
        for (let i = first; i <= at; i += 1) { const [x, y] = view.toScreen(one.samples[i]); if (i === first) context.moveTo(x, y); else context.lineTo(x, y); }
        context.stroke();
        context.globalAlpha = 1;
      }
      if (state.fixations && one.kind === "fixations") for (let i = 0; i <= at; i += 1) {
        const [x, y] = view.toScreen(one.samples[i]);
        context.strokeStyle = colour;
        context.lineWidth = 1.2;
        context.beginPath();
        context.arc(x, y, 4 + 22 * Math.sqrt(Math.min(2, one.samples[i][3])), 0, 2 * Math.PI);
        context.stroke();
      }
      const [x, y] = view.toScreen(one.samples[at]);
      context.fillStyle = colour;
      context.strokeStyle = "#000";
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, 7, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
      view.node.dataset[`dot${k}`] = `${one.samples[at][0]} ${one.samples[at][1]}`;
    });
  }

  const line = el("input", { type: "range", class: "timeline", min: 0, max: Math.max(end, 0.01), step: 0.01, value: 0, "aria-label": t("gaze.time"), on: { input: () => { state.time = Number(line.value); draw(); } } });
  const said = el("output", { class: "said" });
  const play = button("", () => toggle(), { class: "tool", icon: "play", "aria-label": t("gaze.play"), title: app.keys.textOf("play"), "aria-pressed": false });
  const speed = el("select", { "aria-label": t("gaze.speed"), on: { change: () => { state.speed = Number(speed.value); } } }, SPEEDS.map((n) => el("option", { value: n, text: `${number(n)} ×`, selected: n === 1 })));

  function draw() {
    said.textContent = `${number(state.time, 2)} s`;
    line.value = String(state.time);
    for (const view of table.views) view.redraw();
  }

  function toggle() {
    state.playing = !state.playing;
    play.setAttribute("aria-pressed", String(state.playing));
    if (state.playing && state.time >= end) state.time = 0;
    before = performance.now();
    const step = (/** @type {number} */ now) => {
      if (!state.playing || table.closed) return;
      state.time = Math.min(end, state.time + ((now - before) / 1000) * state.speed);
      before = now;
      draw();
      if (state.time >= end) { toggle(); return; }
      frame = requestAnimationFrame(step);
    };
    if (state.playing) frame = requestAnimationFrame(step); else cancelAnimationFrame(frame);
  }

  async function fetchDensity() {
    if (!state.density) { table.redraw(); return; }
    densities.clear();
    const { rows: h, columns: w } = table.views[0]?.read || image;
    const most = 256, rowsOut = Math.max(1, Math.round((h * most) / Math.max(h, w))), columnsOut = Math.max(1, Math.round((w * most) / Math.max(h, w)));
    for (const one of recordings) {
      try {
        const raw = await getArray(query(`/gaze/${image.key}/density`, { recording: one.id, ...(one.px_per_deg ? { degrees: state.degrees } : { sigma_px: one.spread_px }), rows: rowsOut, columns: columnsOut }));
        const map = { shape: raw.shape, values: raw.values, frame: [h / rowsOut, 0, 0, 0, w / columnsOut, 0] };
        const high = raw.values.reduce((/** @type {number} */ a, /** @type {number} */ b) => Math.max(a, b), 0);
        densities.set(one.id, { id: one.id, map, heat: heatCanvas(map, { low: 0, high, smooth: false }) });
      } catch (error) {
        app.say(/** @type {any} */ (error).message, "bad");
      }
    }
    table.redraw();
  }

  const check = (/** @type {"trail"|"fixations"|"density"} */ name) => { const box = el("input", { type: "checkbox", checked: state[name], on: { change: () => { state[name] = box.checked; if (name === "density") fetchDensity(); else table.redraw(); } } }); return el("label", { class: "inline" }, box, el("span", { text: t(`gaze.${name}`) })); };
  const degrees = el("input", { type: "number", class: "short", min: 0.1, max: 10, step: 0.1, value: 1, on: { change: () => { state.degrees = Number(degrees.value) || 1; fetchDensity(); } } });
  fill(own, images.length > 1 ? el("section", {}, el("h2", { text: t("compare.view") }), el("div", { class: "row" }, images.map((/** @type {any} */ one) => button([one.view, one.side].filter(Boolean).join(" ") || t("picture.view", { n: one.ordinal + 1 }), () => app.go(`gaze/${study}/${one.key}`), { class: "tab", "aria-pressed": one.key === image.key })))) : null,
    recordings.length ? el("section", {}, el("h2", { text: t("gaze.readers") }), recordings.map((/** @type {any} */ one, /** @type {number} */ k) => {
      const box = el("input", { type: "checkbox", checked: true, on: { change: () => { if (box.checked) state.shown.add(one.id); else state.shown.delete(one.id); table.redraw(); } } });
      const dot = el("canvas", { width: 12, height: 12, "aria-hidden": "true" }), context = dot.getContext("2d");
      context.fillStyle = HUES[k % HUES.length];
      context.arc(6, 6, 5, 0, 2 * Math.PI);
      context.fill();
      return el("label", { class: "inline" }, box, dot, el("span", { dir: "auto", text: one.reader || t("gaze.reader", { n: k + 1 }) }), el("span", { class: "quiet small", text: t(`gaze.n_${one.kind}`, { n: one.samples.length }) }));
    })) : el("p", { class: "quiet", text: t("gaze.none") }),
    recordings.length ? el("section", {}, el("h2", { text: t("gaze.show") }), check("trail"), check("fixations"), check("density"), recordings.some((/** @type {any} */ one) => one.px_per_deg) ? field(t("gaze.degrees"), degrees) : null) : null);
  fill(table.under, play, line, said, speed);
  table.under.classList.add("nowrap");
  table.useKeys("gaze", {
    play: () => { if (end) toggle(); }, earlier: () => { state.time = Math.max(0, state.time - 0.25); draw(); }, later: () => { state.time = Math.min(end, state.time + 0.25); draw(); },
  });
  await table.hang([{ image, label: [image.view, image.side].filter(Boolean).join(" "), paint }]);
  draw();
  return { close: () => { state.playing = false; cancelAnimationFrame(frame); table.close(); } };
}
