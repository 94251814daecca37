// @ts-check
/**
 * Operations folded to what stands: marks, answers, and what can be undone and redone. Undo is an operation of its
 * own that names the one it takes back (`undoes`), so that the stack can be built again from the log.
 */

/**
 * @typedef {{id: string, client: string, n: number, kind: string, image: string | null, body: any, at_ms: number, mono_ms: number}} Op
 * @typedef {{id: string, image: string, kind: string, role: string, label: string | null, removed: boolean, [field: string]: any}} Mark
 * @typedef {{kind: string, image: string | null, body: any}} Draft what an operation is before it has its numbers
 */

const MAKES = new Set(["add", "copy", "accept"]);
const ANSWERS = new Set(["label", "nothing", "confidence", "quality", "comment"]);
const UNDOABLE = new Set([...MAKES, ...ANSWERS, "change", "remove", "restore"]);

const SHAPE = /** @type {{[kind: string]: string[]}} */ ({ box: ["start", "stop"], polygon: ["parts"], scribble: ["lines", "stroke_px"], mask: ["size", "counts"] });

/** Fields that a change may set, with what stands where a mark lacks them. */
const ABSENT = /** @type {{[field: string]: any}} */ ({ strokes: [], name: "", label: null });

export class Fold {
  constructor() {
    /** @type {Map<string, Mark>} */
    this.marks = new Map();
    this.answers = { label: null, nothing: false, confidence: null, quality: [], comment: "" };
    /** labels of single images @type {{[image: string]: string | null}} */
    this.labels = {};
    /** @type {{[id: string]: string}} */
    this.proposals = {};
    /** @type {Map<string, {op: Op, before: any}>} */
    this.done = new Map();
    /** @type {string[]} */
    this.undoable = [];
    /** @type {string[]} */
    this.redoable = [];
    this.submitted = false;
  }

  /** @param {Op[]} ops */
  static of(ops) {
    const fold = new Fold();
    for (const op of ops) fold.apply(op);
    return fold;
  }

  /** @param {Op} op the same id twice counts once */
  apply(op) {
    if (this.done.has(op.id)) return;
    const before = this.step(op);
    this.done.set(op.id, { op, before });
    if (!UNDOABLE.has(op.kind)) return;
    const { undoes, redoes } = op.body;
    if (undoes) {
      this.undoable = this.undoable.filter((id) => id !== undoes);
      this.redoable.push(undoes);
    } else if (redoes) {
      this.redoable = this.redoable.filter((id) => id !== redoes);
      this.undoable.push(redoes);
    } else {
      this.undoable.push(op.id);
      this.redoable = [];
    }
  }

  /** @param {Op} op @returns {any} what stood before */
  step(op) {
    const { kind, image, body } = op;
    if (MAKES.has(kind)) {
      this.marks.set(body.mark.id, { ...body.mark, label: body.mark.label ?? null, image, removed: false });
      if (kind === "accept") this.proposals[body.proposal] = body.mark.source === "edited" ? "edited" : "accepted";
      return null;
    }
    if (kind === "reject") { this.proposals[body.proposal] = "rejected"; return null; }
    if (kind === "change" || kind === "remove" || kind === "restore") {
      const mark = this.marks.get(body.mark);
      if (!mark) return null;
      if (kind !== "change") {
        mark.removed = kind === "remove";
        if (mark.from && this.proposals[mark.from]) this.proposals[mark.from] = mark.removed ? "rejected" : mark.source === "edited" ? "edited" : "accepted";
        return null;
      }
      const turned = body.set.kind && body.set.kind !== mark.kind;
      // another kind takes the old shape away; the way back brings all of it
      const fields = turned ? ["kind", ...SHAPE[mark.kind], ...Object.keys(body.set).filter((field) => !(SHAPE[body.set.kind] || []).includes(field))] : Object.keys(body.set);
      const before = Object.fromEntries(fields.map((field) => [field, mark[field] ?? ABSENT[field] ?? null]));
      const rest = turned ? Object.fromEntries(Object.entries(mark).filter(([field]) => !SHAPE[mark.kind].includes(field))) : mark;
      this.marks.set(mark.id, /** @type {Mark} */ ({ ...rest, ...body.set }));
      return before;
    }
    if (kind === "label" && image) {
      const before = this.labels[image] ?? null;
      this.labels[image] = body.label;
      return before;
    }
    if (ANSWERS.has(kind)) {
      const before = /** @type {any} */ (this.answers)[kind];
      /** @type {any} */ (this.answers)[kind] = valueOf(kind, body);
      return before;
    }
    if (kind === "submit") this.submitted = true;
    if (kind === "reopen") this.submitted = false;
    return null;
  }

  /** Live marks in the order they were made. @param {string | null} [image] */
  live(image) {
    return [...this.marks.values()].filter((mark) => !mark.removed && (!image || mark.image === image));
  }

  /** Marks that were taken away; they can always come back. */
  gone() {
    return [...this.marks.values()].filter((mark) => mark.removed);
  }

  /** The operation that takes the last action back; null where there is none. @returns {Draft | null} */
  undo() {
    for (let i = this.undoable.length - 1; i >= 0; i -= 1) {
      const found = this.done.get(this.undoable[i]);
      const draft = found && this.inverse(found.op, found.before);
      if (draft) return { ...draft, body: { ...draft.body, undoes: this.undoable[i] } };
    }
    return null;
  }

  /** The operation that brings back what was undone last. @returns {Draft | null} */
  redo() {
    for (let i = this.redoable.length - 1; i >= 0; i -= 1) {
      const found = this.done.get(this.redoable[i]);
      const draft = found && this.again(found.op);
      if (draft) return { ...draft, body: { ...draft.body, redoes: this.redoable[i] } };
    }
    return null;
  }

  /** @param {Op} op @param {any} before @returns {Draft | null} */
  inverse(op, before) {
    const { kind, image, body } = op;
    if (MAKES.has(kind) || kind === "restore") {
      const id = kind === "restore" ? body.mark : body.mark.id;
      return this.marks.get(id)?.removed === false ? { kind: "remove", image, body: { mark: id } } : null;
    }
    if (kind === "remove") return this.marks.get(body.mark)?.removed ? { kind: "restore", image, body: { mark: body.mark } } : null;
    if (kind === "change") return this.marks.get(body.mark)?.removed === false ? { kind, image, body: { mark: body.mark, set: before } } : null;
    return { kind, image, body: bodyOf(kind, before) };
  }

  /** @param {Op} op @returns {Draft | null} */
  again(op) {
    const { kind, image, body } = op;
    if (MAKES.has(kind)) return this.marks.get(body.mark.id)?.removed ? { kind: "restore", image, body: { mark: body.mark.id } } : null;
    if (kind === "restore") return this.marks.get(body.mark)?.removed ? { kind, image, body: { mark: body.mark } } : null;
    if (kind === "remove") return this.marks.get(body.mark)?.removed === false ? { kind, image, body: { mark: body.mark } } : null;
    if (kind === "change") return this.marks.get(body.mark)?.removed === false ? { kind, image, body: { mark: body.mark, set: body.set } } : null;
    return { kind, image, body: bodyOf(kind, valueOf(kind, body)) };
  }
}

/** @param {string} kind @param {any} body */
function valueOf(kind, body) {
  return kind === "label" ? body.label : kind === "quality" ? body.flags : kind === "comment" ? body.text : body.value;
}

/** @param {string} kind @param {any} value */
export function bodyOf(kind, value) {
  const name = kind === "label" ? "label" : kind === "quality" ? "flags" : kind === "comment" ? "text" : "value";
  return { [name]: value };
}
