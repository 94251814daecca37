// @ts-check
/** What the server would not take, of the study that is open before others: shown until one is given up. */
import { button, el, fill } from "./dom.js";
import { ofServer, t } from "./words.js";

/** @param {any} app */
export function showRefusals(app) {
  const all = app.sync?.refused || [];
  const here = (/** @type {any} */ one) => location.hash === `#/read/${one.read}`;
  const record = all.filter(here).at(-1) || all.at(-1);
  app.alarm.hidden = !record;
  if (!record) return;
  const { refused } = record;
  const conflict = refused.conflicts?.[0];
  const words = [t("saving.refused_one"), ofServer(refused.message), ofServer(refused.remedy || ""), refused.unsubmitted ? t("saving.unsubmitted") : ""];
  fill(app.alarm, el("span", { text: words.filter(Boolean).join(" ") }),
    el("details", {}, el("summary", { text: t("saving.show_both") }),
      el("pre", { dir: "ltr", text: JSON.stringify({ [t("saving.here")]: record.op, [t("saving.there")]: conflict?.server ?? null }, null, 1).slice(0, 4000) })),
    here(record) && !refused.unsubmitted ? null : button(t("saving.open"), () => app.go(`read/${record.read}`)),
    button(t("saving.forget"), () => { app.sync?.forget(record); app.screen?.close?.(); app.route(); }));
}
