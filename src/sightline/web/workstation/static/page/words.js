// @ts-check
/** The page's words: one flat table a language. A word that is missing shows its key, so that a test finds it. */

/** @type {{[key: string]: string}} */
let table = {};
let language = "en";
/** @type {Intl.PluralRules} */
let plural = new Intl.PluralRules("en");

/** What the server says in English, in the page's language: whole texts, and texts with gaps. */
/** @type {{[text: string]: string}} */
let said = {};
/** @type {[RegExp, string][]} */
let gaps = [];

export const LANGUAGES = { en: "English", de: "Deutsch" };

/**
 * Load a language; English where it cannot be had.
 * @param {string} wanted
 */
export async function loadWords(wanted) {
  const name = /^[a-z]{2,3}$/.test(wanted) ? wanted : "en";
  for (const code of name === "en" ? ["en"] : [name, "en"]) {
    const answer = await fetch(`/static/words/${code}.json`).catch(() => null);
    if (answer && answer.ok) {
      table = await answer.json();
      language = code;
      break;
    }
  }
  said = language === "en" ? {} : await fetch(`/static/words/server_${language}.json`).then((answer) => (answer.ok ? answer.json() : {})).catch(() => ({}));
  // the longest first: what fits a text with little in it fits many
  gaps = Object.keys(said).filter((text) => text.includes("{}")).sort((a, b) => b.length - a.length)
    .map((text) => [new RegExp(`^${text.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.*?)")}$`, "s"), said[text]]);
  const tag = table._tag || language;
  plural = new Intl.PluralRules(tag);
  document.documentElement.lang = tag;
  document.documentElement.dir = table._dir || "ltr";
}

export const languageOf = () => language;
const tagOf = () => table._tag || language;

/**
 * The words of a key. With a number `n`, `key.one` and `key.other` are chosen by the language's rule.
 * @param {string} key
 * @param {{[name: string]: string | number}} [values] fill {name} in the text
 * @returns {string}
 */
export function t(key, values = {}) {
  let text = table[key];
  if (text === undefined && typeof values.n === "number") text = table[`${key}.${plural.select(values.n)}`] ?? table[`${key}.other`];
  if (text === undefined) return `⟦${key}⟧`;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/**
 * What the server said, in the page's language; as it came where the language has no words for it.
 * @param {string} text
 * @returns {string}
 */
export function ofServer(text) {
  if (said[text] !== undefined) return said[text];
  for (const [pattern, words] of gaps) {
    const found = pattern.exec(text);
    let at = 0;
    if (found) return words.replace(/\{\}/g, () => found[++at]);
  }
  return text;
}

/**
 * What a study is called: its number in the page's language, or the id that the server gives.
 * @param {string} title
 */
export function titleOf(title) {
  const found = /^Study (\d+)$/.exec(title);
  return found ? t("study.number", { n: found[1] }) : title;
}

/** @param {string} key */
export const known = (key) => key in table;

/**
 * A number as the language writes it.
 * @param {number | null | undefined} value
 * @param {number} [digits] after the point
 */
export function number(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(tagOf(), digits === undefined ? { maximumFractionDigits: 3 } : { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/**
 * A moment, short.
 * @param {string | number | null | undefined} value
 */
export function moment(value) {
  if (value === null || value === undefined || value === "") return "–";
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? "–" : new Intl.DateTimeFormat(tagOf(), typeof value === "string" && /^\d{4}-\d\d-\d\d$/.test(value) ? { dateStyle: "medium", timeZone: "UTC" } : { dateStyle: "medium", timeStyle: "short" }).format(date);
}

/**
 * Seconds as 24.1 s or 3 min 05 s.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${number(seconds, 1)} s`;
  const whole = Math.round(seconds);
  return `${number(Math.floor(whole / 60))} min ${String(whole % 60).padStart(2, "0")} s`;
}
