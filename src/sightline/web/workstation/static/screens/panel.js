// @ts-check
/** What stands around the pictures: the rail of tools, the strip of the picture, and the answers at the side. */
import { button, el, fill, icon } from "../page/dom.js";
import { number, t } from "../page/words.js";
import { CT_WINDOWS } from "../picture/grey.js";
import { INK } from "../picture/paint.js";

// what the server says of a proposal that it read off a map
const BY_BOX = "box read off the map, as the run reads it";
const TOOLS = ["scribble", "box", "polygon", "brush", "eraser", "select", "window", "ruler"];

/** @param {any} screen the marking screen */
export function makePanel(screen) {
  const { app, desk } = screen;
  const { keys } = app;
  const told = (/** @type {string} */ words, /** @type {string} */ action) => (keys.textOf(action) ? `${words} (${keys.textOf(action)})` : words);
  const small = (/** @type {string} */ name, /** @type {string} */ words, /** @type {string} */ action, /** @type {() => any} */ act, more = {}) =>
    button("", act, { class: "tool", icon: name, title: told(words, action), "aria-label": words, ...more });

  // the rail

  const tools = new Map(TOOLS.filter((name) => desk.allowed(name)).map((name) => [name, small(name, t(`tool.${name}`), `tool.${name}`, () => desk.takeTool(name), { "aria-pressed": false })]));
  const rail = el("nav", { class: "rail", "aria-label": t("tool.all") }, [...tools.values()],
    el("hr"), small("undo", t("action.undo"), "undo", () => desk.undo()), small("redo", t("action.redo"), "redo", () => desk.redo()), small("copy", t("action.copy"), "copy", () => desk.copy()),
    el("hr"), small("reset", t("action.reset"), "reset", () => desk.active?.reset()), small("fit", t("action.fit"), "fit", () => desk.active?.fit()),
    small("invert", t("action.invert"), "invert", () => { const view = desk.active; if (view) { view.inverted = !view.inverted; view.setWindow(view.window); } }),
    small("rotate", t("action.rotate"), "rotate", () => desk.active?.rotate()),
    el("span", { class: "stretch" }), small("help", t("menu.help"), "keys", () => app.go("help")));

  // the strip

  const preset = el("select", { "aria-label": t("window.preset"), title: t("window.preset") });
  const centre = el("input", { type: "number", class: "short", "aria-label": t("window.centre"), title: t("window.centre"), step: "any" });
  const width = el("input", { type: "number", class: "short", "aria-label": t("window.width"), title: t("window.width"), step: "any", min: 1 });
  const typed = () => {
    const view = desk.active, c = Number(centre.value), w = Number(width.value);
    if (view && Number.isFinite(c) && w >= 1) view.setWindow({ ...view.currentWindow(), centre: c * view.unit(), width: w * view.unit() });
  };
  centre.addEventListener("change", typed);
  width.addEventListener("change", typed);
  preset.addEventListener("change", () => takePreset(Number(preset.value)));
  const size = el("input", { type: "range", min: 1, max: 200, class: "size", on: { input: () => {
    if (desk.toolName === "brush" || desk.toolName === "eraser") desk.brushRadius = Number(size.value); else desk.strokeWidth = Number(size.value);
    desk.changed();
  } } });
  const sizeSaid = el("output", { class: "said" });
  const sizeBox = el("label", { class: "inline" }, el("span", {}), size, sizeSaid);
  const layoutButton = button("", () => screen.nextLayout(), { class: "tool", icon: "layout", title: told(t("action.layout"), "layout"), "aria-label": t("action.layout") });
  const linkBox = el("input", { type: "checkbox", checked: screen.linked, on: { change: () => screen.toggleLink() } });
  const network = button(t("action.network"), () => screen.toggleNetwork(desk.active), { class: "quiet", icon: "network", title: told(t("action.network_more"), "network"), "aria-pressed": false });
  const many = screen.all.length > 1;
  const strip = el("div", { class: "strip", role: "toolbar", "aria-label": t("picture.controls") },
    preset, el("span", { class: "pair" }, centre, el("span", { "aria-hidden": "true", text: "/" }), width), sizeBox, el("span", { class: "stretch" }),
    app.me.runs.length && !screen.all.every((/** @type {any} */ view) => view.plane) ? network : null,
    many ? el("label", { class: "inline", title: told(t("action.link_more"), "link") }, linkBox, el("span", { text: t("action.link") })) : null, many ? layoutButton : null);

  /** @returns {{name: string, act: (view: any) => void}[]} */
  function presets() {
    const view = desk.active;
    if (!view) return [];
    if (view.plane) return [...CT_WINDOWS.map(({ name, centre: c, width: w }) => ({ name: t(`window.${name}`), act: (/** @type {any} */ one) => one.setWindow({ centre: c, width: w, function: "linear", invert: false }) })), { name: t("window.auto"), act: (/** @type {any} */ one) => one.autoWindow() }];
    const grey = view.facts?.greyscale;
    return [
      { name: t("window.as_read"), act: (/** @type {any} */ one) => one.setWindow(null) },
      { name: t("window.auto"), act: (/** @type {any} */ one) => one.autoWindow() }, { name: t("window.full"), act: (/** @type {any} */ one) => one.fullWindow() },
      ...(view.stored ? view.facts?.windows || [] : []).map((/** @type {any} */ w, /** @type {number} */ i) => ({ name: w.name || t("window.of_file", { n: i + 1 }), act: (/** @type {any} */ one) => one.setWindow({ centre: w.centre, width: w.width, function: grey?.function || "linear", invert: false }) })),
    ];
  }

  /** @param {number} n */
  function takePreset(n) {
    const found = presets()[n];
    if (found && desk.active) found.act(desk.active);
    preset.value = String(n);
  }

  function updateWindow() {
    const view = desk.active;
    if (!view) return;
    const list = presets();
    const words = JSON.stringify(list.map((one) => one.name));
    if (preset.dataset.words !== words) {
      preset.dataset.words = words;
      fill(preset, list.map((one, i) => el("option", { value: i, text: one.name })), el("option", { value: -1, text: t("window.own") }));
    }
    const now = view.currentWindow();
    preset.value = !view.window ? "0" : view.plane ? String(CT_WINDOWS.findIndex((one) => one.centre === now.centre && one.width === now.width)) : "-1";
    if (document.activeElement !== centre) centre.value = String(Math.round((now.centre / view.unit()) * 100) / 100);
    if (document.activeElement !== width) width.value = String(Math.round((now.width / view.unit()) * 100) / 100);
  }

  // the answers

  const { task } = desk;
  const classes = task.ask.label ? el("div", { class: "classes", role: "group", "aria-label": t("answer.label") }) : null;
  const classButtons = task.ask.label ? task.classes.map((/** @type {string} */ name, /** @type {number} */ i) => {
    const key = i < 9 ? keys.textOf(`class.${i + 1}`) : "";
    return button("", () => desk.answer("label", desk.fold.answers.label === name ? null : name), { class: "choice", "aria-pressed": false, data: { class: name }, "aria-keyshortcuts": key || null });
  }) : [];
  classButtons.forEach((/** @type {any} */ one, /** @type {number} */ i) => {
    fill(one, el("span", { dir: "auto", text: task.classes[i] }), i < 9 ? el("kbd", { text: keys.textOf(`class.${i + 1}`), "aria-hidden": "true" }) : null);
    classes.appendChild(one);
  });
  const nothing = task.tools.length ? button("", () => desk.answer("nothing", !desk.fold.answers.nothing), { class: "choice", "aria-pressed": false }) : null;
  if (nothing) fill(nothing, el("span", { text: t("answer.nothing") }), el("kbd", { text: keys.textOf("nothing"), "aria-hidden": "true" }));
  // a click where the slider stands already changes nothing, and is an answer all the same
  const sayHowSure = () => desk.answer("confidence", Number(sure.value));
  const sure = el("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": t("answer.confidence"), on: { input: () => { sureSaid.textContent = number(Number(sure.value)); }, change: sayHowSure, click: sayHowSure } });
  const sureSaid = el("output", { class: "said" });
  const marks = el("ul", { class: "marks" });
  const gone = el("details", { class: "gone" });
  const proposals = el("div", { class: "proposals" });
  const markClass = el("select", { "aria-label": t("mark.class_of_new"), on: { change: () => {
    const label = markClass.value || null, mark = desk.selected();
    if (mark && desk.toolName === "select") desk.changeMark(null, mark.id, { label }); else { desk.markClass = label; desk.changed(); }
  } } }, el("option", { value: "", text: t("mark.all_classes") }), task.classes.map((/** @type {string} */ name) => el("option", { value: name, text: name })));
  const roles = task.roles.map((/** @type {string} */ role) => button("", () => desk.setRole(role), { class: "choice role", "aria-pressed": false, data: { role } }));
  roles.forEach((/** @type {any} */ one, /** @type {number} */ i) => fill(one, el("span", { class: `swatch ${task.roles[i]}`, "aria-hidden": "true" }), t(`role_of_mark.${task.roles[i]}`)));
  const flags = task.ask.quality.map((/** @type {string} */ flag) => {
    const box = el("input", { type: "checkbox", value: flag, on: { change: () => {
      const now = desk.fold.answers.quality;
      desk.answer("quality", box.checked ? [...now, flag] : now.filter((/** @type {string} */ one) => one !== flag));
    } } });
    return { flag, box, node: el("label", { class: "inline check" }, box, el("span", { text: t(`quality.${flag}`) })) };
  });
  const comment = el("textarea", { rows: 2, maxlength: 10000, dir: "auto", "aria-label": t("answer.comment"), placeholder: t("answer.comment"), on: { input: () => { clearTimeout(commentTimer); commentTimer = setTimeout(flush, 1500); }, blur: () => flush(), keydown: (/** @type {KeyboardEvent} */ event) => { if (event.key === "Escape") { event.stopPropagation(); desk.active?.node.focus(); } } } });
  /** @type {any} */
  let commentTimer = 0;
  const send = button("", () => screen.submit(), { class: "primary submit" });
  fill(send, el("span", { text: t("answer.submit") }), el("kbd", { text: keys.textOf("submit"), "aria-hidden": "true" }));
  const missing = el("p", { class: "quiet small missing", role: "status" });
  const aid = screen.read.aid ? el("section", { class: "aid" }, el("h2", { text: t("aid.title") }), el("p", {}, el("strong", { dir: "auto", text: screen.read.aid.label }), ` ${screen.read.aid.probabilities ? number(Math.max(...screen.read.aid.probabilities), 2) : ""}`)) : null;

  const aside = el("aside", { class: "panel", "aria-label": t("answer.all") }, el("div", { class: "panel-scroll" },
    aid,
    classes || nothing ? el("section", {}, el("h2", { text: classes ? t("answer.label") : t("answer.title") }), classes, nothing) : null,
    task.ask.confidence ? el("section", {}, el("h2", { text: t("answer.confidence") }), el("div", { class: "inline sure" }, sure, sureSaid)) : null,
    screen.desk.proposals.length ? el("section", {}, el("h2", { text: t("proposal.title") }), proposals) : null,
    task.tools.length ? el("section", {}, el("h2", { text: t("mark.title") }), roles.length > 1 ? el("div", { class: "roles", role: "group", "aria-label": t("mark.role") }, roles) : null, el("div", { class: "class-row" }, markClass), marks, gone) : null,
    flags.length ? el("details", { class: "quality" }, el("summary", { text: t("quality.title") }), flags.map((/** @type {any} */ one) => one.node)) : null,
    el("section", {}, comment)), el("div", { class: "panel-foot" }, missing, send));

  /** @returns {Promise<void>} */
  async function flush() {
    clearTimeout(commentTimer);
    if (!desk.readOnly() && comment.value !== desk.fold.answers.comment) desk.answer("comment", comment.value);
  }

  /** @param {any} mark */
  const nameOf = (mark) => [t(`kind.${mark.kind}`), t(`role_of_mark.${mark.role}`), mark.label].filter(Boolean).join(" · ");
  const placeOf = (/** @type {any} */ mark) => {
    if (!many) return "";
    const view = screen.all.find((/** @type {any} */ one) => one.image.key === mark.image);
    return view && !view.plane ? view.label : "";
  };

  let signature = "";
  function updateMarks() {
    const live = desk.fold.live(), taken = desk.fold.gone(), open = desk.openProposals();
    const now = JSON.stringify([live.map((/** @type {any} */ m) => [m.id, m.kind, m.role, m.label]), taken.map((/** @type {any} */ m) => m.id), open.map((/** @type {any} */ p) => p.id), desk.selectedId, desk.readOnly()]);
    if (now === signature) return;
    signature = now;
    const held = /** @type {HTMLElement | null} */ (document.activeElement), focus = held?.dataset?.mark ? `[data-mark="${held.dataset.mark}"][data-act="${held.dataset.act}"]` : "";
    const locked = desk.readOnly();
    fill(marks, live.map((/** @type {any} */ mark) => {
      const pick = button("", () => { const view = screen.all.find((/** @type {any} */ one) => one.image.key === mark.image); if (view) { screen.focusView(screen.all.indexOf(view)); if (view.plane) screen.desk.centreCross(view.volume, view.volume.middle(mark)); } desk.select(mark.id); if (desk.toolName !== "select") desk.takeTool("select"); }, { class: "pick", "aria-pressed": mark.id === desk.selectedId, data: { mark: mark.id, act: "pick" } });
      fill(pick, el("span", { class: `swatch ${mark.role}`, "aria-hidden": "true" }), el("span", { class: "words" }, el("span", { dir: "auto", text: nameOf(mark) }), placeOf(mark) ? el("span", { class: "quiet small", dir: "auto", text: placeOf(mark) }) : null));
      const turn = !locked && ["scribble", "polygon", "mask"].includes(mark.kind) && mark.id === desk.selectedId ? button("", () => desk.turnInto(mark, "box"), { class: "tool small", icon: "box", title: t("mark.into_box"), "aria-label": t("mark.into_box"), data: { mark: mark.id, act: "turn" } })
        : !locked && mark.kind === "box" && mark.start.length === 2 && mark.id === desk.selectedId && desk.allowed("polygon") ? button("", () => desk.turnInto(mark, "polygon"), { class: "tool small", icon: "polygon", title: t("mark.into_polygon"), "aria-label": t("mark.into_polygon"), data: { mark: mark.id, act: "turn" } }) : null;
      return el("li", { class: mark.id === desk.selectedId ? "selected" : "" }, pick, turn, locked ? null : button("", () => desk.remove(mark.id), { class: "tool small", icon: "bin", title: told(t("action.remove"), "remove"), "aria-label": `${t("action.remove")}: ${nameOf(mark)}`, data: { mark: mark.id, act: "remove" } }));
    }));
    if (!live.length) fill(marks, el("li", { class: "none", text: t("mark.none") }));
    const wasOpen = gone.open;
    fill(gone, el("summary", { text: t("mark.gone", { n: taken.length }) }), el("ul", { class: "marks" }, taken.map((/** @type {any} */ mark) => el("li", {}, el("span", { class: "pick" }, el("span", { class: `swatch ${mark.role}`, "aria-hidden": "true" }), el("span", { dir: "auto", text: nameOf(mark) })), locked ? null : button(t("mark.bring_back"), () => desk.restore(mark.id), { class: "quiet small", data: { mark: mark.id, act: "restore" } })))));
    gone.open = wasOpen;
    gone.hidden = !taken.length;
    fill(proposals, open.map((/** @type {any} */ one, /** @type {number} */ i) => el("div", { class: "proposal" }, el("span", {}, t(`kind.${one.mark.kind}`), " ", number(one.score, 2)), el("span", { class: "quiet small", text: one.how === BY_BOX ? t("proposal.by_box") : one.how || "" }),
      button("", () => desk.accept(one), { class: "tool small", icon: "check", title: told(t("action.accept"), i ? "" : "accept"), "aria-label": t("action.accept") }), button("", () => desk.reject(one), { class: "tool small", icon: "cross", title: told(t("action.reject"), i ? "" : "reject"), "aria-label": t("action.reject") }))));
    if (!open.length) fill(proposals, el("p", { class: "quiet small", text: t("proposal.none") }));
    if (focus) /** @type {HTMLElement | null} */ (marks.querySelector(focus))?.focus();
  }

  function update() {
    const { answers } = desk.fold, locked = desk.readOnly();
    for (const [name, node] of tools) node.setAttribute("aria-pressed", String(desk.toolName === name));
    const tool = desk.tools[desk.toolName];
    for (const view of screen.all) view.ink.className = `ink ${tool?.cursor || (desk.toolName === "window" ? "window" : "default")}`;
    for (const one of classButtons) { one.setAttribute("aria-pressed", String(one.dataset.class === answers.label)); one.disabled = locked; }
    if (nothing) { nothing.setAttribute("aria-pressed", String(answers.nothing)); nothing.disabled = locked; }
    if (document.activeElement !== sure) sure.value = String(answers.confidence ?? 50);
    sure.disabled = locked;
    sureSaid.textContent = answers.confidence === null ? "–" : number(answers.confidence);
    for (const { flag, box } of flags) { box.checked = answers.quality.includes(flag); box.disabled = locked; }
    if (document.activeElement !== comment) comment.value = answers.comment;
    comment.readOnly = locked;
    const brushing = desk.toolName === "brush" || desk.toolName === "eraser";
    sizeBox.hidden = !(brushing || desk.toolName === "scribble");
    sizeBox.firstChild.textContent = brushing ? t("tool.radius") : t("tool.width");
    size.setAttribute("aria-label", brushing ? t("tool.radius") : t("tool.width"));
    size.value = String(brushing ? desk.brushRadius : desk.strokeWidth);
    sizeSaid.textContent = `${number(brushing ? desk.brushRadius : desk.strokeWidth)} px`;
    const selected = desk.toolName === "select" ? desk.selected() : null;
    const role = selected?.role || desk.role;
    for (const one of roles) { one.setAttribute("aria-pressed", String(one.dataset.role === role)); one.disabled = locked; }
    markClass.value = (selected ? selected.label : desk.markClass) || "";
    markClass.disabled = locked;
    linkBox.checked = screen.linked;
    network.setAttribute("aria-pressed", String(Boolean(desk.active?.throughNetwork)));
    const lacks = desk.readOnly() ? null : desk.missing();
    const aside = locked ? 0 : app.sync.aside(screen.read.id).length;
    missing.textContent = aside ? t("submit.refused", { n: aside }) : lacks ? t(`submit.missing_${lacks}`) : "";
    missing.classList.toggle("bad", aside > 0);
    send.firstChild.textContent = desk.fold.submitted || locked ? t("answer.next") : t("answer.submit");
    updateMarks();
    updateWindow();
  }

  /** Where something is missing. @param {string} what */
  function point(what) {
    const target = { label: classButtons[0], confidence: sure, nothing, comment }[what];
    target?.focus();
  }

  void icon;
  void INK;
  return { rail, strip, aside, update, updateWindow, takePreset, flush, point };
}
