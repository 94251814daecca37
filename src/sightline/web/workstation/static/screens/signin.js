// @ts-check
/** Signing in, as a page of its own or over the page when the session is over. */
import { call, get } from "../kept/server.js";
import { forgetAll } from "../kept/study.js";
import { button, el, field, fill } from "../page/dom.js";
import { LANGUAGES, languageOf, loadWords, t } from "../page/words.js";

/** @param {any} app @param {(me: any) => void} done @param {string} [name] */
function form(app, done, name = "") {
  const who = el("input", { name: "username", autocomplete: "username", required: true, maxlength: 100, dir: "auto", value: name });
  const word = el("input", { name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: 500 });
  const said = el("p", { class: "bad", role: "alert", hidden: true });
  const send = el("button", { type: "submit", class: "primary", text: t("signin.go") });
  const node = el("form", { class: "signin-form" }, field(t("signin.name"), who), field(t("signin.password"), word), said, send);
  node.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    send.disabled = true;
    said.hidden = true;
    try {
      done(await call("POST", "/session", { name: who.value, password: word.value }, { quiet: true }));
    } catch (error) {
      const { status, message, remedy, answer } = /** @type {any} */ (error);
      said.textContent = status === 401 ? t("signin.wrong") : status === 429 ? t("signin.wait", { n: Math.ceil(answer.retry_after_s || 1) }) : status === 0 ? t("app.no_server") : `${message} ${remedy}`;
      said.hidden = false;
      word.value = "";
      word.focus();
    }
    send.disabled = false;
  });
  return { node, who, word };
}

/** The page before anybody is signed in. @param {any} app */
export async function signIn(app) {
  document.body.dataset.screen = "signin";
  if (app.alone) {
    fill(app.root, el("main", { class: "sheet signin" }, el("h1", { text: "sightline" }), el("p", { text: t("signin.alone") }), el("p", { class: "quiet", text: t("not_for_diagnosis") })));
    return;
  }
  const made = form(app, (me) => app.enter(me));
  const language = el("select", { "aria-label": t("settings.language"), on: { change: async () => { app.remember("language", language.value); await loadWords(language.value); signIn(app); } } },
    Object.entries(LANGUAGES).map(([code, name]) => el("option", { value: code, text: name, selected: code === languageOf(), lang: code })));
  fill(app.root, el("main", { class: "sheet signin", id: "main" },
    el("div", { class: "brand large", "aria-hidden": "true" }, el("span", { class: "eye" }), el("span", { text: "sightline" })),
    el("h1", { text: t("signin.title") }), made.node,
    el("footer", {}, language, el("span", { class: "quiet", text: t("not_for_diagnosis") }))));
  made.who.focus();
}

/** The session is over while somebody works: sign in over the page, nothing on it is lost. @param {any} app */
export function signInOver(app) {
  if (document.querySelector("dialog.over")) return;
  const box = el("dialog", { class: "over", "aria-label": t("signin.over") });
  const made = form(app, async (me) => {
    close();
    if (me.reader.id !== app.me.reader.id) { await app.screen?.close?.(); app.enter(me); return; }
    app.me = me;
    app.sync?.signedIn(me.reader.id);
  }, app.me.reader.name);
  // what was drawn last may reach the disk after the dialog stands there
  const kept = el("p", { role: "status" }), sync = app.sync;
  const sayKept = () => {
    const n = sync?.state().n || 0;
    kept.textContent = n ? t("signin.kept", { n }) : t("signin.none_kept");
  };
  const close = () => { sync?.removeEventListener("change", sayKept); box.close(); box.remove(); };
  sync?.addEventListener("change", sayKept);
  sayKept();
  fill(box, el("h2", { text: t("signin.over") }), kept, made.node);
  box.addEventListener("cancel", (/** @type {Event} */ event) => event.preventDefault());
  document.body.appendChild(box);
  if (app.alone) {
    fill(box, el("h2", { text: t("signin.over") }), el("p", { text: t("signin.alone") }), kept, button(t("again"), async () => {
      const session = await get("/session", { quiet: true }).catch(() => null);
      if (session?.signed_in) { close(); app.sync?.signedIn(app.me.reader.id); }
    }, { class: "primary" }));
  }
  box.showModal();
  made.word.focus?.();
}

/** @param {any} app */
export async function signOut(app) {
  await app.screen?.close?.();
  app.screen = null;
  try {
    await call("DELETE", "/session");
  } catch (error) {
    app.say(/** @type {any} */ (error).message, "bad");
    return;
  }
  app.sync?.stop();
  app.sync = null;
  app.me = null;
  forgetAll();
  location.hash = "";
  await app.signIn();
}
