# ruff: noqa: E501
"""Undo as operations, against a list of what stood: a thousand random actions in the page's own modules."""

import json

import pytest

from tests.support.workstation_page import PATIENCE

# the page's modules do the work; the reference is a plain list of snapshots
MODEL = """
async ([seed, n]) => {
  const { Fold } = await import('/static/marks/fold.js');
  let x = seed >>> 0;
  const random = () => { x = (x + 0x6d2b79f5) >>> 0; let t = x; t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61); return ((t ^ (t >>> 14)) >>> 0) / 4294967296; };
  const pick = (list) => list[Math.floor(random() * list.length)];
  let log = [], fold = new Fold(), past = [], future = [], count = 0;
  const faults = [];
  const state = (f) => JSON.stringify([[...f.marks.values()].filter((m) => !m.removed), f.answers]);
  let now = { marks: [], answers: { label: null, nothing: false, confidence: null, quality: [], comment: '' } };
  const seen = () => JSON.stringify([now.marks, now.answers]);
  const copy = (v) => JSON.parse(JSON.stringify(v));
  const send = (draft) => { count += 1; const op = { id: 'o' + count, client: 'c', n: count, at_ms: 0, mono_ms: count, ...copy(draft) }; log.push(op); fold.apply(op); };
  const act = (draft, change) => { past.push(copy(now)); future = []; send(draft); change(); };
  const shapes = () => { const r = Math.floor(random() * 50), c = Math.floor(random() * 50);
    return pick([{ kind: 'box', start: [r, c], stop: [r + 5, c + 9] }, { kind: 'polygon', parts: [[[r, c], [r + 4, c], [r, c + 4]]] },
      { kind: 'scribble', lines: [[[r, c], [r + 1, c + 2]]], stroke_px: 1 + Math.floor(random() * 9) },
      { kind: 'mask', size: [4, 4], counts: [r % 8, 2, 14 - (r % 8)] }]); };
  const geometry = { box: ['start', 'stop'], polygon: ['parts'], scribble: ['lines', 'stroke_px'], mask: ['size', 'counts'] };
  for (let k = 0; k < n; k += 1) {
    const what = random();
    if (what < 0.3) {
      const mark = { id: 'm' + k, role: pick(['focus', 'finding']), label: pick([null, 'a']), name: '', source: 'drawn', strokes: [], ...shapes() };
      act({ kind: pick(['add', 'copy']), image: 'i', body: { mark, from: 'm0' } }, () => now.marks.push({ ...mark, image: 'i', removed: false }));
    } else if (what < 0.42 && now.marks.length) {
      const mark = pick(now.marks), shape = shapes();
      const set = { ...shape, strokes: [], source: 'converted' };
      act({ kind: 'change', image: 'i', body: { mark: mark.id, set } }, () => {
        const fresh = Object.fromEntries(Object.entries(mark).filter(([name]) => !geometry[mark.kind].includes(name)));
        now.marks[now.marks.indexOf(mark)] = { ...fresh, ...set }; });
    } else if (what < 0.5 && now.marks.length) {
      const mark = pick(now.marks), label = pick([null, 'a', 'b']);
      act({ kind: 'change', image: 'i', body: { mark: mark.id, set: { label } } }, () => { now.marks[now.marks.indexOf(mark)] = { ...mark, label }; });
    } else if (what < 0.58 && now.marks.length) {
      const mark = pick(now.marks);
      act({ kind: 'remove', image: 'i', body: { mark: mark.id } }, () => { now.marks = now.marks.filter((m) => m !== mark); });
    } else if (what < 0.66) {
      const [kind, name, value] = pick([['label', 'label', pick([null, 'a', 'b'])], ['nothing', 'value', random() < 0.5],
        ['confidence', 'value', Math.floor(random() * 100)], ['quality', 'flags', random() < 0.5 ? ['x'] : []], ['comment', 'text', 't' + k]]);
      act({ kind, image: null, body: { [name]: value } }, () => { now.answers = { ...now.answers, [kind]: value }; });
    } else if (what < 0.85) {
      const draft = fold.undo();
      if (Boolean(draft) !== past.length > 0) faults.push('undo offered wrongly at ' + k);
      if (draft) { send(draft); future.push(copy(now)); now = past.pop(); }
    } else if (what < 0.97) {
      const draft = fold.redo();
      if (Boolean(draft) !== future.length > 0) faults.push('redo offered wrongly at ' + k);
      if (draft) { send(draft); past.push(copy(now)); now = future.pop(); }
    } else {
      fold = Fold.of(copy(log));  // the page was loaded again
    }
    const sort = (text) => { const [marks, answers] = JSON.parse(text); const order = (o) => Object.fromEntries(Object.entries(o).sort());
      return JSON.stringify([marks.map(order).sort((a, b) => (a.id < b.id ? -1 : 1)), answers]); };
    if (sort(state(fold)) !== sort(seen())) { faults.push(`state differs after ${k}: ${sort(state(fold))} is not ${sort(seen())}`); break; }
  }
  return { faults, log };
}
"""


@pytest.mark.parametrize("seed", [1, *(pytest.param(more, marks=pytest.mark.slow) for more in (2, 3))])
def test_a_thousand_random_actions_equal_a_list_of_snapshots_in_page_and_server(enter, seed):
    ada = enter("ada")
    ada.open("help")
    ada.page.locator(".keys").wait_for(timeout=PATIENCE * 1000)
    answer = ada.page.evaluate(MODEL, [seed, 1000])
    assert answer["faults"] == []
    assert sum("undoes" in op["body"] for op in answer["log"]) > 80
    assert sum("redoes" in op["body"] for op in answer["log"]) > 20
    # the server folds the page's own log to the same marks and answers
    from sightline.web.workstation.marks.fold import fold_operations

    server = fold_operations(answer["log"])
    page = ada.page.evaluate(
        """async (log) => { const { Fold } = await import('/static/marks/fold.js'); const f = Fold.of(log);
        return [f.live(), f.answers]; }""",
        answer["log"],
    )

    def plain(mark):
        return json.dumps(mark, sort_keys=True)

    assert sorted(map(plain, server.live)) == sorted(map(plain, page[0]))
    assert server.answers.label == page[1]["label"] and server.answers.comment == page[1]["comment"]
    assert (server.answers.nothing, list(server.answers.quality)) == (page[1]["nothing"], page[1]["quality"])


def test_run_lengths_are_those_of_the_coco_tools(enter):
    import numpy as np
    from pycocotools import mask as coco

    ada = enter("ada")
    ada.open("help")
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 1), (1, 7), (13, 11), (40, 31)):
        for share in (0.0, 0.2, 0.8, 1.0):
            pixels = (rng.random(shape) < share).astype(np.uint8)
            counts, back, extent = ada.page.evaluate(
                """async ([pixels, rows, columns]) => { const m = await import('/static/marks/run_lengths.js');
                const counts = m.encode(Uint8Array.from(pixels), rows, columns);
                return [counts, [...m.decode(counts, rows, columns)], m.extent(counts, rows)]; }""",
                [pixels.ravel().tolist(), *shape],
            )
            assert back == pixels.ravel().tolist()
            packed = coco.frPyObjects({"size": list(shape), "counts": counts}, *shape)
            assert np.array_equal(coco.decode(packed), pixels)
            there = np.argwhere(pixels)
            wanted = [*there.min(0), *(there.max(0) + 1)] if len(there) else None
            assert extent == (None if wanted is None else [int(v) for v in wanted])
