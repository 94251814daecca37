// @ts-check
/** Elements made by hand: every text goes in by textContent, so that no name or comment is ever read as HTML. */

/**
 * @typedef {string | number | Node | null | undefined | false | Array<any>} Child
 * @typedef {{[name: string]: any}} Properties `class`, `text`, `on` {event: handler}, `data` {name: value};
 *   true and false switch an attribute; everything else is an attribute.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {Element} node
 * @param {Properties} properties
 */
function dress(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "text") node.textContent = String(value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "data") for (const [key, word] of Object.entries(value)) node.setAttribute(`data-${key}`, String(word));
    else if (name === "value") /** @type {any} */ (node).value = value;
    else if (value === true) node.setAttribute(name, name.startsWith("aria-") ? "true" : "");
    else if (value === false) { if (name.startsWith("aria-")) node.setAttribute(name, "false"); }
    else node.setAttribute(name, String(value));
  }
}

/**
 * An HTML element.
 * @param {string} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {any}
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  dress(node, properties);
  put(node, children);
  return node;
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  dress(node, properties);
  put(node, children);
  return node;
}

/**
 * Append children; lists are laid flat, nothing is skipped but null, undefined and false.
 * @param {Node} node
 * @param {Child[]} children
 */
export function put(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/**
 * Replace all that a node holds.
 * @param {Element} node
 * @param {...Child} children
 */
export function fill(node, ...children) {
  node.replaceChildren();
  put(node, children);
}

/**
 * A button with a word, and its key in the tooltip.
 * @param {string} text
 * @param {(event: Event) => void} act
 * @param {Properties} [properties]
 */
export function button(text, act, properties = {}) {
  return el("button", { type: "button", ...properties, on: { click: act, ...(properties.on || {}) } }, properties.icon ? icon(properties.icon) : null, text);
}

/**
 * A field with its words above it.
 * @param {string} words
 * @param {any} control
 * @param {string} [more] class of the label
 */
export function field(words, control, more = "") {
  return el("label", { class: `field ${more}` }, el("span", { class: "words", text: words }), control);
}

const PATHS = {
  scribble: "M3 17c3-9 6-12 8-9s-3 8 0 9 5-6 9-9",
  box: "M4 6h16v12H4z",
  polygon: "M12 3l8 6-3 10H7L4 9z",
  brush: "M14 4l6 6-8 8c-2 2-6 2-8 2 0-2 0-6 2-8z",
  eraser: "M9 19l-5-5L14 4l6 6-9 9zM9 19h11",
  select: "M6 3l12 9-6 1 4 7-3 1-3-7-4 4z",
  window: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  undo: "M9 5L4 10l5 5M4 10h10a6 6 0 0 1 0 12h-2",
  redo: "M15 5l5 5-5 5M20 10H10a6 6 0 0 0 0 12h2",
  reset: "M4 12a8 8 0 1 0 3-6M4 4v5h5",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  invert: "M12 3a9 9 0 0 1 0 18zM12 3a9 9 0 0 0 0 18",
  layout: "M4 4h7v16H4zM13 4h7v7h-7zM13 13h7v7h-7z",
  network: "M5 5h14v14H5zM5 10h14M5 15h14M10 5v14M15 5v14",
  copy: "M8 8h12v12H8zM4 16V4h12",
  rotate: "M20 12a8 8 0 1 1-3-6M20 3v5h-5",
  ruler: "M3 16L16 3l5 5L8 21zM7 12l2 2M10 9l2 2M13 6l2 2",
  bin: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 18v.5",
  play: "M7 4l13 8-13 8z",
  check: "M4 12l6 6L20 6",
  cross: "M5 5l14 14M19 5L5 19",
  user: "M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM4 21c0-5 4-7 8-7s8 2 8 7",
};

/**
 * A line drawing of 20 px; it carries no meaning alone, the button's words do.
 * @param {keyof typeof PATHS | string} name
 */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", width: 20, height: 20, "aria-hidden": "true", focusable: "false" },
    svg("path", { d: /** @type {any} */ (PATHS)[name] || "", fill: "none", stroke: "currentColor", "stroke-width": 1.7, "stroke-linecap": "round", "stroke-linejoin": "round" }),
  );
}

/**
 * A dialog over the page; Esc closes it, the focus goes back where it was.
 * @param {string} title
 * @param {Child[]} body
 * @param {{wide?: boolean, closed?: () => void, words: string}} options `words` name the closing button
 */
export function dialog(title, body, options) {
  const before = /** @type {any} */ (document.activeElement);
  const head = el("h2", { text: title, id: `title-${Math.random().toString(36).slice(2)}` });
  const box = el("dialog", { class: options.wide ? "wide" : "", "aria-labelledby": head.id });
  const close = () => { if (box.open) box.close(); };
  put(box, [el("header", {}, head, button(options.words, close, { class: "quiet close", "aria-label": options.words })), ...body]);
  box.addEventListener("close", () => {
    box.remove();
    options.closed?.();
    before?.focus?.();
  });
  document.body.appendChild(box);
  box.showModal();
  return { box, close };
}
