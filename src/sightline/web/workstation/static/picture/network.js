// @ts-check
/** The input of a network in the place of the picture, and back; marks stay where they are in the picture. */
import { getArray, query } from "../kept/server.js";
import { displayOf } from "../kept/study.js";
import { t } from "../page/words.js";
import { rasterOf } from "./grey.js";

/** A view as marks see it through the frame of a network's input. @param {any} view @param {number[]} frame */
function through(view, frame) {
  const [a, b, c, d, e, f] = frame, det = a * e - b * d;
  const back = (/** @type {number[]} */ p) => [(e * (p[0] - c) - b * (p[1] - f)) / det, (a * (p[1] - f) - d * (p[0] - c)) / det];
  return {
    get zoom() { return view.zoom / Math.sqrt(Math.abs(det)); },
    toScreen: (/** @type {number[]} */ p) => view.toScreen(back(p)),
    affine: () => {
      const o = view.toScreen(back([0, 0])), r = view.toScreen(back([1, 0])), q = view.toScreen(back([0, 1]));
      return [r[0] - o[0], q[0] - o[0], r[1] - o[1], q[1] - o[1], o[0], o[1]];
    },
  };
}

/** @param {any} screen the marking screen @param {any} view */
export async function toggleNetwork(screen, view) {
  const { app, desk } = screen;
  if (view.throughNetwork) {
    view.throughNetwork = null;
    view.show(await displayOf(view.image));
    const facts = view.beforeNetwork;
    if (facts) { view.stored = facts.stored; view.take(facts.state); }
    screen.panel.update();
    return;
  }
  const run = app.me.runs.find((/** @type {any} */ one) => one.state !== "failed");
  if (!run) { app.say(t("picture.no_run")); return; }
  try {
    const raw = await getArray(query(`/images/${view.image.key}/view`, { run: run.key }), "u2");
    if (screen.closed) return;
    if (raw.waiting) { app.say(t("picture.computing")); return; }
    const [rows, columns] = raw.shape.slice(-2);
    view.beforeNetwork = { state: view.state(), stored: view.stored };
    view.throughNetwork = through(view, (raw.headers.get("X-Frame") || "").split(",").map(Number));
    view.stored = null;
    view.window = null;
    view.inverted = false;
    view.show(rasterOf({ shape: [rows, columns], dtype: raw.dtype, values: raw.values.subarray(0, rows * columns) }));
    desk.make("shown", view.image.key, { what: "network view", ids: [] });
  } catch (error) {
    const { status, message } = /** @type {any} */ (error);
    app.say(status === 404 ? t("picture.network_hidden") : message, "bad");
  }
  screen.panel.update();
}
