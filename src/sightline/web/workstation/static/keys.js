// @ts-check
/** Every action of the page and its keys, in one table. A reader may bind them anew; conflicts are shown. */

/**
 * @typedef {{id: string, keys: string[], group: string, scope: "all"|"mark"|"compare"|"gaze", held?: boolean, words?: {[name: string]: number}}} Action
 * A key is written as the modifiers `Ctrl+`, `Alt+`, `Shift+` and the character or name of the key; Shift is named
 * for letters, digits and named keys only, because it belongs to characters such as `?`.
 */

const range = (/** @type {number} */ n) => Array.from({ length: n }, (_, i) => i + 1);

/** @type {Action[]} */
export const ACTIONS = [
  { id: "tool.scribble", keys: ["b"], group: "tools", scope: "mark" },
  { id: "tool.box", keys: ["x"], group: "tools", scope: "mark" },
  { id: "tool.polygon", keys: ["p"], group: "tools", scope: "mark" },
  { id: "tool.brush", keys: ["m"], group: "tools", scope: "mark" },
  { id: "tool.eraser", keys: ["e"], group: "tools", scope: "mark" },
  { id: "tool.select", keys: ["v"], group: "tools", scope: "mark" },
  { id: "tool.window", keys: ["w"], group: "tools", scope: "mark" },
  { id: "tool.ruler", keys: ["u"], group: "tools", scope: "mark" },
  { id: "wider", keys: ["+", "Shift++"], group: "tools", scope: "mark" },
  { id: "thinner", keys: ["-"], group: "tools", scope: "mark" },
  { id: "pen", keys: ["d"], group: "tools", scope: "mark" },
  { id: "pan", keys: ["Space"], group: "picture", scope: "all", held: true },
  { id: "reset", keys: ["0"], group: "picture", scope: "all" },
  { id: "fit", keys: ["f"], group: "picture", scope: "all" },
  { id: "one_to_one", keys: ["g"], group: "picture", scope: "all" },
  { id: "invert", keys: ["i"], group: "picture", scope: "all" },
  { id: "rotate", keys: ["Shift+r"], group: "picture", scope: "mark" },
  { id: "zoom_in", keys: ["Ctrl+ArrowUp"], group: "picture", scope: "all" },
  { id: "zoom_out", keys: ["Ctrl+ArrowDown"], group: "picture", scope: "all" },
  { id: "narrower", keys: ["Alt+ArrowLeft"], group: "picture", scope: "mark" },
  { id: "broader", keys: ["Alt+ArrowRight"], group: "picture", scope: "mark" },
  { id: "brighter", keys: ["Alt+ArrowUp"], group: "picture", scope: "mark" },
  { id: "darker", keys: ["Alt+ArrowDown"], group: "picture", scope: "mark" },
  ...range(9).map((n) => /** @type {Action} */ ({ id: `preset.${n}`, keys: [`Shift+${n}`], group: "picture", scope: "mark", words: { n } })),
  { id: "network", keys: ["n"], group: "picture", scope: "mark" },
  { id: "hide", keys: ["h"], group: "picture", scope: "all", held: true },
  { id: "layout", keys: ["l"], group: "views", scope: "mark" },
  { id: "link", keys: ["k"], group: "views", scope: "mark" },
  ...range(6).map((n) => /** @type {Action} */ ({ id: `view.${n}`, keys: n <= 4 ? [`F${n}`, `Alt+${n}`] : [`Alt+${n}`], group: "views", scope: "mark", words: { n } })),
  { id: "slice_up", keys: ["PageUp"], group: "views", scope: "all" },
  { id: "slice_down", keys: ["PageDown"], group: "views", scope: "all" },
  { id: "undo", keys: ["Ctrl+z"], group: "marks", scope: "mark" },
  { id: "redo", keys: ["Ctrl+Shift+z", "Ctrl+y"], group: "marks", scope: "mark" },
  { id: "remove", keys: ["Delete"], group: "marks", scope: "mark" },
  { id: "next_mark", keys: ["Tab"], group: "marks", scope: "mark" },
  { id: "previous_mark", keys: ["Shift+Tab"], group: "marks", scope: "mark" },
  { id: "next_corner", keys: ["j"], group: "marks", scope: "mark" },
  { id: "remove_corner", keys: ["Shift+Delete"], group: "marks", scope: "mark" },
  { id: "copy", keys: ["c"], group: "marks", scope: "mark" },
  { id: "role", keys: ["q"], group: "marks", scope: "mark" },
  ...["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].flatMap((name) => [
    /** @type {Action} */ ({ id: `move.${name.slice(5).toLowerCase()}`, keys: [name], group: "marks", scope: "mark" }),
    /** @type {Action} */ ({ id: `move_far.${name.slice(5).toLowerCase()}`, keys: [`Shift+${name}`], group: "marks", scope: "mark" }),
  ]),
  ...range(9).map((n) => /** @type {Action} */ ({ id: `class.${n}`, keys: [`${n}`], group: "answer", scope: "mark", words: { n } })),
  { id: "nothing", keys: ["y"], group: "answer", scope: "mark" },
  { id: "accept", keys: ["a"], group: "answer", scope: "mark" },
  { id: "reject", keys: ["r"], group: "answer", scope: "mark" },
  { id: "comment", keys: ["t"], group: "answer", scope: "mark" },
  { id: "submit", keys: ["Enter"], group: "study", scope: "mark" },
  { id: "back", keys: ["Backspace"], group: "study", scope: "mark" },
  { id: "map", keys: ["o"], group: "maps", scope: "compare" },
  { id: "blink", keys: ["b"], group: "maps", scope: "compare" },
  { id: "fainter", keys: ["["], group: "maps", scope: "compare" },
  { id: "stronger", keys: ["]"], group: "maps", scope: "compare" },
  { id: "map_class_before", keys: [","], group: "maps", scope: "compare" },
  { id: "map_class_after", keys: ["."], group: "maps", scope: "compare" },
  { id: "smooth", keys: ["s"], group: "maps", scope: "compare" },
  { id: "play", keys: ["p"], group: "gaze", scope: "gaze" },
  { id: "earlier", keys: ["ArrowLeft"], group: "gaze", scope: "gaze" },
  { id: "later", keys: ["ArrowRight"], group: "gaze", scope: "gaze" },
  { id: "keys", keys: ["?"], group: "study", scope: "all" },
  { id: "cancel", keys: ["Escape"], group: "study", scope: "all" },
];

/** The browser's own, which a page cannot or must not take. */
const REFUSED = new Set([
  "Ctrl+t", "Ctrl+w", "Ctrl+n", "Ctrl+Shift+n", "Ctrl+Shift+t", "Ctrl+Shift+w", "Ctrl+Tab", "Ctrl+Shift+Tab", "Ctrl+r", "Ctrl+Shift+r", "Ctrl+l",
  "Ctrl+p", "Ctrl+f", "Ctrl+q", "Ctrl+j", "Ctrl+h", "Ctrl+d", "Ctrl+c", "Ctrl+v", "Ctrl+x", "Ctrl+a", "Ctrl++", "Ctrl+-", "Ctrl+0", "F5", "F6", "F11", "F12", "Alt+F4", "Meta",
]);

/** @param {string} chord */
export const isBrowsers = (chord) => REFUSED.has(chord) || chord.startsWith("Meta");

/** The key that was pressed, as the table writes it; empty for a modifier alone. @param {KeyboardEvent} event */
export function chordOf(event) {
  const { key, code } = event;
  if (["Shift", "Control", "Alt", "AltGraph", "Meta", "Dead", "Process", "Unidentified"].includes(key)) return key === "Meta" ? "Meta" : "";
  const graph = event.getModifierState?.("AltGraph") || false;
  const digit = /^(Digit|Numpad)(\d)$/.exec(code);
  let name = key === " " ? "Space" : key;
  const isDigit = digit !== null && !graph && (code.startsWith("Digit") || /^\d$/.test(key));
  if (isDigit) name = digit[2];
  else if (name.length === 1) name = name.toLowerCase();
  const shift = event.shiftKey && (isDigit || name.length > 1 || /^\p{L}$/u.test(name) || name === "+");
  return `${event.ctrlKey && !graph ? "Ctrl+" : ""}${event.altKey && !graph ? "Alt+" : ""}${shift ? "Shift+" : ""}${name}`;
}

export class Keys {
  /** @param {{[action: string]: string[]}} own what the reader bound anew */
  constructor(own = {}) {
    /** @type {Map<string, string[]>} */
    this.bound = new Map();
    this.rebind(own);
    /** @type {Map<string, (event: KeyboardEvent | null) => any>} */
    this.acts = new Map();
    /** @type {Map<string, () => void>} */
    this.ends = new Map();
    this.scope = "all";
    /** @type {Map<string, string>} code of a key that is down to the held action it began */
    this.down = new Map();
    window.addEventListener("keydown", (event) => this.press(event));
    window.addEventListener("keyup", (event) => this.release(event.code));
    window.addEventListener("blur", () => { for (const code of [...this.down.keys()]) this.release(code); });
  }

  /** @param {{[action: string]: string[]}} own */
  rebind(own) {
    this.bound = new Map(ACTIONS.map((action) => [action.id, own[action.id] || action.keys]));
  }

  /**
   * What a screen does on each action; `false` from an act leaves the key to the browser.
   * @param {string} scope
   * @param {{[action: string]: (event: KeyboardEvent | null) => any}} acts
   * @param {{[action: string]: () => void}} [ends] of held keys
   */
  use(scope, acts, ends = {}) {
    this.scope = scope;
    this.acts = new Map(Object.entries(acts));
    this.ends = new Map(Object.entries(ends));
    this.down.clear();
  }

  /** Actions a key stands for, in a scope. @param {string} chord @param {string} scope */
  actionsOf(chord, scope) {
    return ACTIONS.filter((action) => (action.scope === scope || action.scope === "all" || scope === "any") && this.bound.get(action.id)?.includes(chord));
  }

  /** Pairs of actions that would hear the same key. @returns {{chord: string, actions: string[]}[]} */
  conflicts() {
    const found = new Map();
    for (const scope of ["mark", "compare", "gaze"]) {
      for (const action of ACTIONS) for (const chord of this.bound.get(action.id) || []) {
        const actions = this.actionsOf(chord, scope).map((one) => one.id);
        if (actions.length > 1) found.set(`${scope} ${chord}`, { chord, actions });
      }
    }
    return [...found.values()];
  }

  /** @returns {{[action: string]: string[]}} what differs from the table */
  own() {
    return Object.fromEntries(ACTIONS.filter((action) => JSON.stringify(this.bound.get(action.id)) !== JSON.stringify(action.keys)).map((action) => [action.id, this.bound.get(action.id) || []]));
  }

  /** @param {string} action */
  textOf(action) {
    return (this.bound.get(action) || []).join(", ");
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const chord = chordOf(event);
    if (!chord) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const typing = target.matches?.("input:not([type=checkbox]):not([type=radio]):not([type=range]):not([type=button]), textarea, select");
    if (typing && chord !== "Escape") return;
    // a button that has the focus is pressed by these, a slider moved, and a list walked
    if (target.matches?.("button, a[href], summary") && (chord === "Enter" || chord === "Space")) return;
    if (target.matches?.("input") && /^(Arrow|Page|Home|End|Space|Tab)/.test(chord.replace("Shift+", ""))) return;
    for (const action of this.actionsOf(chord, this.scope)) {
      const act = this.acts.get(action.id);
      if (!act) continue;
      if (action.held) {
        event.preventDefault();
        if (this.down.has(event.code)) return;
        this.down.set(event.code, action.id);
        act(event);
        return;
      }
      if (act(event) !== false) event.preventDefault();
      return;
    }
  }

  /** @param {string} code */
  release(code) {
    const action = this.down.get(code);
    if (!action) return;
    this.down.delete(code);
    this.ends.get(action)?.();
  }
}
