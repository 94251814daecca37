// @ts-check
/** What the units of a network respond to, in an expert's words. Another's names come into sight after one's own. */
import { call, get } from "../kept/server.js";
import { button, el, fill } from "../page/dom.js";
import { moment, number, t } from "../page/words.js";

const PAGE = 12;

/** @param {any} app @param {HTMLElement} place */
export async function show(app, place) {
  document.title = `${t("menu.units")} · sightline`;
  if (!app.me.dissection) { fill(place, el("div", { class: "page" }, el("h1", { text: t("menu.units") }), el("p", { class: "quiet", text: t("units.none") }), el("pre", { dir: "ltr", text: "sightline workstation COHORT --dissection DIR" }))); return; }
  const answer = await get("/units");
  const units = answer.units.sort((/** @type {any} */ a, /** @type {any} */ b) => a.rank - b.rank);
  let shown = PAGE;
  const grid = el("div", { class: "unit-grid" });
  const more = button(t("units.more"), () => { shown += PAGE; draw(); });

  /** @param {any} unit @param {HTMLElement} card */
  function drawUnit(unit, card) {
    const mine = unit.names.filter((/** @type {any} */ one) => one.mine).at(-1);
    const text = el("input", { maxlength: 500, dir: "auto", value: mine?.text || "", "aria-label": t("units.name_of", { n: unit.unit }), placeholder: t("units.placeholder") });
    const name = async (/** @type {string} */ words) => {
      if (!words.trim()) return;
      try {
        const fresh = await call("POST", `/units/${unit.unit}/names`, { text: words.trim() });
        Object.assign(unit, fresh);
        app.say(t("units.stored"));
        drawUnit(unit, card);
      } catch (error) {
        app.say(`${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}`, "bad");
      }
    };
    text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => { if (event.key === "Enter") name(text.value); });
    fill(card, el("div", { class: "row" }, el("h2", { text: t("units.unit", { n: unit.unit }) }), el("span", { class: "quiet small", text: t("units.rank", { n: unit.rank }) }), el("span", { class: "stretch" }),
      Object.entries(unit.numbers || {}).filter(([, value]) => typeof value === "number").slice(0, 5).map(([key, value]) => el("span", { class: "small" }, el("span", { class: "quiet", text: `${t(`units.value.${key}`)} ` }), number(/** @type {number} */ (value), 3)))),
    unit.gallery ? el("a", { href: unit.gallery, target: "_blank", rel: "noopener" }, el("img", { src: unit.gallery, alt: t("units.gallery", { n: unit.unit }), loading: "lazy" })) : null,
    el("div", { class: "row" }, text, button(t("units.store"), () => name(text.value), { class: "primary" }), button(t("units.mixed"), () => name("mixed"), { class: "quiet" }), button(t("units.nothing"), () => name("nothing"), { class: "quiet" })),
    unit.names.length ? el("ul", { class: "named" }, unit.names.map((/** @type {any} */ one) => el("li", {}, el("strong", { dir: "auto", text: one.text }), " ", el("span", { class: "quiet small", dir: "auto", text: `${one.author}, ${moment(one.date)}` })))) : null);
  }

  function draw() {
    fill(grid, units.slice(0, shown).map((/** @type {any} */ unit) => { const card = el("section", { class: "card unit", data: { unit: unit.unit } }); drawUnit(unit, card); return card; }));
    more.hidden = shown >= units.length;
  }

  const write = async () => {
    try {
      const { written, kept } = await call("POST", "/units/concepts", {});
      app.say(t("units.written", { n: written, kept }));
    } catch (error) {
      app.say(`${/** @type {any} */ (error).message} ${/** @type {any} */ (error).remedy}`, "bad");
    }
  };
  fill(place, el("div", { class: "page" }, el("div", { class: "row" }, el("h1", { text: t("menu.units") }), el("span", { class: "quiet", text: t("units.of", { layer: answer.layer, n: units.length }) }), el("span", { class: "stretch" }), app.me.may.includes("plan") ? button(t("units.write"), write) : null), el("p", { class: "quiet", text: t("units.how") }), grid, more));
  draw();
}
