// @ts-check
/** The sheet of keys, how to read a map, and the reader's own settings. */
import { ACTIONS, chordOf, isBrowsers } from "../keys.js";
import { call } from "../kept/server.js";
import { button, el, field, fill } from "../page/dom.js";
import { LANGUAGES, languageOf, t } from "../page/words.js";

const GROUPS = ["tools", "picture", "views", "marks", "answer", "study", "maps", "gaze"];

/** @param {any} app @param {HTMLElement} place @param {string[]} rest */
export async function show(app, place, rest) {
  document.title = `${t("help.title")} · sightline`;
  const sheet = el("div", { class: "keys" });
  const warning = el("p", { class: "bad", role: "alert", hidden: true });
  /** @type {string | null} */
  let waiting = null;

  /** @param {any} action */
  const wordsOf = (action) => t(`key.${action.id.replace(/\.\d$/, ".n")}`, action.words || {});

  function draw() {
    const conflicts = app.keys.conflicts();
    const inConflict = new Set(conflicts.flatMap((/** @type {any} */ one) => one.actions));
    warning.hidden = conflicts.length === 0;
    warning.textContent = conflicts.map((/** @type {any} */ one) => t("keys.conflict", { key: one.chord, what: one.actions.map((/** @type {string} */ id) => wordsOf(ACTIONS.find((action) => action.id === id))).join(", ") })).join(" ");
    fill(sheet, GROUPS.map((group) => el("section", { class: "card" }, el("h2", { text: t(`group.${group}`) }), el("table", {}, el("caption", { class: "hidden-words", text: t(`group.${group}`) }), el("tbody", {},
      ACTIONS.filter((action) => action.group === group).map((action) => el("tr", { class: inConflict.has(action.id) ? "conflict" : "" }, el("th", { scope: "row", text: wordsOf(action) }), el("td", { class: "chord" },
        button(waiting === action.id ? t("keys.press") : app.keys.textOf(action.id) || t("keys.none"), () => { waiting = action.id; draw(); /** @type {any} */ (sheet.querySelector(`[data-action="${action.id}"]`))?.focus(); },
          { "aria-label": t("keys.change", { what: wordsOf(action), key: app.keys.textOf(action.id) || t("keys.none") }), data: { action: action.id } })))))))));
  }

  /** @param {KeyboardEvent} event */
  function take(event) {
    if (!waiting) return;
    const chord = chordOf(event);
    if (!chord) return;
    event.preventDefault();
    event.stopPropagation();
    const action = waiting;
    waiting = null;
    if (chord === "Escape" && action !== "cancel") { draw(); return; }
    if (isBrowsers(chord)) app.say(t("keys.browsers", { key: chord }), "bad");
    else {
      app.keys.bound.set(action, [chord]);
      app.setSettings({ keys: app.keys.own() });
    }
    draw();
    /** @type {any} */ (sheet.querySelector(`[data-action="${action}"]`))?.focus();
  }
  window.addEventListener("keydown", take, true);

  const theme = el("select", { on: { change: () => { app.applyTheme(theme.value); app.setSettings({ theme: theme.value }); } } },
    ["dark", "light"].map((name) => el("option", { value: name, text: t(`theme.${name}`), selected: document.documentElement.dataset.theme === name })));
  const language = el("select", { on: { change: async () => { await app.setSettings({ language: language.value }); location.reload(); } } },
    Object.entries(LANGUAGES).map(([code, name]) => el("option", { value: code, text: name, lang: code, selected: code === languageOf() })));
  const old = el("input", { type: "password", autocomplete: "current-password" }), fresh = el("input", { type: "password", autocomplete: "new-password", minlength: 12 });
  const change = async () => {
    try {
      await call("POST", "/me/password", { old: old.value, new: fresh.value });
      app.say(t("settings.password_changed"));
      old.value = "";
      fresh.value = "";
    } catch (error) {
      const { message, remedy } = /** @type {any} */ (error);
      app.say(`${message} ${remedy}`, "bad");
    }
  };
  const settings = el("section", { class: "card", id: "settings" }, el("h2", { text: t("menu.settings") }),
    el("div", { class: "row end" }, field(t("settings.theme"), theme), field(t("settings.language"), language)),
    app.me.alone ? null : el("div", { class: "row end" }, field(t("settings.old_password"), old), field(t("settings.new_password"), fresh), button(t("settings.change_password"), change)));
  fill(place, el("div", { class: "page" }, el("h1", { text: t("help.title") }), el("p", { class: "quiet", text: `${t("not_for_diagnosis")}. ${t("help.browsers")}` }), settings,
    el("section", { class: "card" }, el("h2", { text: t("help.maps") }), el("p", { text: t("help.maps_text") })),
    el("section", { class: "card" }, el("h2", { text: t("help.clock") }), el("p", { text: t("help.clock_text") })),
    el("div", { class: "row" }, el("h2", { text: t("keys.title") }), el("span", { class: "stretch" }), button(t("keys.defaults"), () => { app.keys.rebind({}); app.setSettings({ keys: null }); draw(); })),
    el("p", { class: "quiet small", text: t("keys.how") }), warning, sheet));
  draw();
  if (rest[0] === "settings") theme.focus();
  return { close: () => window.removeEventListener("keydown", take, true) };
}
