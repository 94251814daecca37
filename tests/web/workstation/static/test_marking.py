"""Marking in a real browser: every tool, undo, reload, submission, the keyboard alone."""

import pytest

from sightline.web.workstation.marks.operations import POINTS_AT_MOST
from tests.support.workstation_page import until

LINE = [(0.3, 0.3), (0.5, 0.5), (0.6, 0.7)]


@pytest.fixture
def ada(enter):
    return enter("ada")


def fresh(person, number, task="mark"):
    """A read of the queue, its picture drawn."""
    return person.open_read(number, task)["read"]


def kinds(person, read):
    return [op["kind"] for op in person.ops(read)]


def test_every_tool_makes_a_mark_that_the_server_holds(ada):
    read = fresh(ada, 0)
    ada.drag(LINE)
    ada.key("x")
    ada.drag([(0.2, 0.2), (0.4, 0.45)])
    ada.key("p")
    for place in ((0.6, 0.2), (0.8, 0.2), (0.7, 0.5)):
        ada.page.mouse.click(*ada.at(*place))
    ada.key("Enter")
    ada.key("m")
    ada.drag([(0.3, 0.8), (0.5, 0.8)])
    ada.saved()
    marks = ada.marks(read)
    assert [mark["kind"] for mark in marks] == ["scribble", "box", "polygon", "mask"]
    assert marks[3]["size"] == [240, 200] and sum(marks[3]["counts"][1::2]) > 50
    stroke = marks[0]["strokes"][0]
    assert len(stroke["points"]) == len(marks[0]["lines"][0]) >= 8
    assert [p[:2] for p in stroke["points"]] == marks[0]["lines"][0]
    assert all(b[2] >= a[2] for a, b in zip(stroke["points"], stroke["points"][1:], strict=False))
    assert all(round(value, 3) == value for point in stroke["points"] for value in point[:3])


# a stroke of more points than one mark holds, then one more line with Shift
LONG = """async (most) => { const { scribble } = await import('/static/tools/scribble.js');
    const marks = [], told = [], view = { image: { key: 'i' }, drawInk() {}, redraw() {} };
    const tool = scribble({ readyAt: 0, strokeWidth: 6, penDown() {}, penUp() {}, keepDraft() {},
      tell: (word) => told.push(word), selected: () => ({ ...marks[0], image: 'i' }),
      addMark: (_, mark) => marks.push(mark), changeMark: () => told.push('changed') });
    const event = (k, shiftKey = false) => ({ timeStamp: k, pressure: 1 / 3, pointerType: 'mouse', shiftKey });
    tool.down(view, event(0), [0, 0]);
    const at = (k) => ({ event: event(k + 1 / 7), p: [9999 + k / 7, k / 9] });
    for (let k = 1; k < most + 10; k += 1) tool.move(view, null, [at(k)]);
    tool.up(view, event(most + 10), [1, 1]);
    tool.down(view, event(0, true), [1, 1]);
    tool.up(view, event(1), [2, 2]);
    return { told, points: marks.map((mark) => mark.strokes[0].points.length),
      lines: marks.map((mark) => mark.lines[0].length), one: marks[0].strokes[0].points[6],
      bytes: JSON.stringify(marks[0]).length }; }"""


def test_a_scribble_ends_where_the_server_takes_no_more_points_of_it(ada):
    ada.show("worklist")
    half = POINTS_AT_MOST // 2
    made = ada.page.evaluate(LONG, half)
    assert made["points"] == made["lines"] == [half, 2]
    assert made["told"] == ["tool.scribble_full", "tool.scribble_apart"]
    assert made["one"] == [9999.857, 0.667, 6.1, 0.3333]
    assert made["bytes"] < 70 * half


# strokes of the brush on one mask, each of so many points; how many points the mark holds after each
BRUSHED = """async (most) => { const { brush } = await import('/static/tools/brush.js');
    let mark = null;
    const held = [], view = { image: { key: 'i' }, read: { rows: 9, columns: 9 }, drawInk() {}, redraw() {} };
    const keep = (made) => { mark = { ...mark, ...made, image: 'i', id: 'm' };
      held.push(mark.strokes.map((one) => one.points.length)); };
    const tool = brush({ readyAt: 0, brushRadius: 2, penDown() {}, penUp() {}, selected: () => mark,
      addMark: (_, made) => keep(made), changeMark: (_, id, made) => keep(made) }, false);
    const event = { timeStamp: 0, pressure: 0.5 };
    for (let n = 0; n < 4; n += 1) {
      tool.down(view, event, [3, 3]);
      for (let k = 1; k < most; k += 1) tool.move(view, null, [{ event, p: [4, 4] }]);
      tool.up(view);
    }
    return held; }"""


def test_a_mask_is_brushed_on_however_many_points_its_strokes_had(ada):
    """Every stroke was kept in the mark, until the server took no more of it: then no stroke was taken any more."""
    ada.show("worklist")
    third = POINTS_AT_MOST // 6
    assert ada.page.evaluate(BRUSHED, third) == [[third], [third] * 2, [third], [third] * 2]


def test_a_box_lies_where_it_was_drawn(ada):
    read = fresh(ada, 1)
    ada.key("x")
    view = ada.page.evaluate("document.querySelector('.view').getBoundingClientRect().toJSON()")
    scale = min(view["width"] / 200, view["height"] / 240)
    left, top = view["x"] + (view["width"] - 200 * scale) / 2, view["y"] + (view["height"] - 240 * scale) / 2
    ada.page.mouse.move(left + 50 * scale, top + 60 * scale)
    ada.page.mouse.down()
    ada.page.mouse.move(left + 120 * scale, top + 150 * scale, steps=3)
    ada.page.mouse.up()
    ada.saved()
    box = ada.marks(read)[0]
    off = [abs(a - b) for a, b in zip(box["start"] + box["stop"], [60, 50, 150, 120], strict=True)]
    # the mouse knows whole pixels of the screen, and the picture hangs on one
    assert max(off) * scale <= 1.0
    # a line is no box, and it is said
    ada.drag([(0.3, 0.3), (0.5, 0.3)])
    until(lambda: "at least a pixel" in ada.toast(), "too small")
    assert len(ada.marks(read)) == 1


# the box around the ink, in CSS pixels of the frame, and how many pixels each canvas has
INK = """() => { const c = document.querySelector('.view canvas.ink'), b = c.getBoundingClientRect();
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = b.width / c.width;
    const at = []; for (let i = 3; i < d.length; i += 4) if (d[i] > 60) at.push((i - 3) / 4);
    const x = at.map((i) => i % c.width), y = at.map((i) => Math.floor(i / c.width));
    const ends = (v) => [s * v.reduce((a, b) => Math.min(a, b)), s * v.reduce((a, b) => Math.max(a, b))];
    const p = document.querySelector('.view canvas.picture');
    return { ink: at.length ? [...ends(x), ...ends(y)] : null, sizes: [[c.width, c.height], [p.width, p.height]] }; }"""


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_ink_lies_under_the_pointer_on_a_screen_of_other_pixels_too(ada, told):
    # a ratio that is set from outside is told to no page: the browser's part is played here
    ada.page.add_init_script(
        "window.asked = []; window.matchMedia = (words) => "
        "{ const made = new EventTarget(); window.asked.push({ words, made }); return made; };"
    )
    read = fresh(ada, 3)
    view = ada.view()
    session = ada.page.context.new_cdp_session(ada.page)
    screen = {"width": 1366, "height": 768, "deviceScaleFactor": 2, "mobile": False}
    session.send("Emulation.setDeviceMetricsOverride", screen)
    until(lambda: ada.page.evaluate("devicePixelRatio") == 2, "two pixels of the screen to one of the page")
    assert ada.view() == view
    wanted = [[round(2 * view["width"]), round(2 * view["height"])]] * 2
    if told:
        ada.page.evaluate("for (const one of [...window.asked]) one.made.dispatchEvent(new Event('change'))")
        asked = ada.page.evaluate("window.asked.map((one) => one.words)")
        assert asked == ["(resolution: 1dppx)"] * 2 + ["(resolution: 2dppx)"] * 2
        until(lambda: ada.page.evaluate(INK)["sizes"] == wanted, "sharp by itself")
    ada.drag([(0.4, 0.4), (0.6, 0.6)])
    ada.saved()
    until(lambda: ada.page.evaluate(INK)["ink"], "the mark is drawn")
    found = ada.page.evaluate(INK)
    assert found["sizes"] == wanted
    drawn = [share * view[side] for side in ("width", "height") for share in (0.4, 0.6)]
    assert max(abs(a - b) for a, b in zip(found["ink"], drawn, strict=True)) < 20
    ada.key("Delete")
    ada.saved()
    assert ada.marks(read) == []


def test_undo_redo_and_bringing_back_survive_a_reload(ada):
    read = fresh(ada, 2)
    ada.key("x")
    for k in range(3):
        ada.drag([(0.2 + 0.1 * k, 0.2), (0.3 + 0.1 * k, 0.4)])
    ada.key("Delete")
    ada.saved()
    first = ada.marks(read)
    assert len(first) == 2
    ada.page.reload()
    ada.ready(read)
    ada.key("Control+z")
    ada.saved()
    assert len(ada.marks(read)) == 3
    ada.key("Control+z", "Control+z")
    ada.saved()
    assert [m["id"] for m in ada.marks(read)] == [first[0]["id"]]
    ada.page.reload()
    ada.ready(read)
    ada.key("Control+Shift+z", "Control+y")
    ada.saved()
    assert len(ada.marks(read)) == 3
    undone = [op for op in ada.ops(read) if "undoes" in op["body"]]
    assert len(undone) == 3
    ada.key("Control+Shift+z")
    ada.saved()
    assert ada.marks(read) == first
    ada.page.locator("details.gone summary").click()
    ada.page.get_by_role("button", name="Bring back").click()
    ada.saved()
    assert len(ada.marks(read)) == 3


def test_marks_are_moved_edited_and_copied_to_the_next_view(ada):
    read = fresh(ada, 3)
    ada.key("x")
    ada.drag([(0.3, 0.3), (0.5, 0.5)])
    ada.saved()
    drawn = ada.marks(read)[0]
    ada.key("ArrowRight", "ArrowRight", "Shift+ArrowDown")
    ada.saved()
    moved = ada.marks(read)[0]
    assert moved["start"] == pytest.approx([drawn["start"][0] + 10, drawn["start"][1] + 2])
    ada.key("v")
    ada.drag([(0.4, 0.3 + 10 / 300), (0.45, 0.3)])  # the upper side, more or less
    ada.key("j", "ArrowUp")
    ada.saved()
    ada.key("c")
    ada.saved()
    both = ada.marks(read)
    assert len(both) == 2 and both[0]["image"] != both[1]["image"]
    assert (both[1]["start"], both[1]["stop"]) == (both[0]["start"], both[0]["stop"])
    assert both[1]["source"] == "copied" and both[1]["from"] == both[0]["id"] and both[1]["id"] != both[0]["id"]
    ada.key("ArrowLeft")
    ada.saved()
    after = ada.marks(read)
    assert after[0] == both[0] and after[1]["start"][1] == pytest.approx(both[0]["start"][1] - 1)


def test_the_eraser_changes_a_mask_and_takes_it_away_when_nothing_is_left(enter):
    ben = enter("ben")
    read = fresh(ben, 0)
    ben.key("m")
    ben.drag([(0.4, 0.5), (0.5, 0.5)])
    ben.saved()
    before = sum(ben.marks(read)[0]["counts"][1::2])
    ben.key("e")
    ben.drag([(0.49, 0.5), (0.52, 0.5)])
    ben.saved()
    assert 0 < sum(ben.marks(read)[0]["counts"][1::2]) < before
    for _ in range(12):
        ben.key("+")
    ben.drag([(0.35, 0.5), (0.55, 0.5)])
    ben.saved()
    assert ben.marks(read) == []


def test_a_polygon_has_parts_and_its_corners_can_be_moved_added_and_taken_out(enter):
    ben = enter("ben")
    read = fresh(ben, 1)
    ben.key("p")
    corners = ((0.3, 0.3), (0.5, 0.3), (0.5, 0.5), (0.3, 0.5))
    for place in corners:
        ben.page.mouse.click(*ben.at(*place))
    ben.page.mouse.click(*ben.at(*corners[0]))
    ben.saved()
    assert [len(part) for part in ben.marks(read)[0]["parts"]] == [4]
    ben.page.keyboard.down("Shift")
    for place in ((0.6, 0.6), (0.7, 0.6), (0.65, 0.7)):
        ben.page.mouse.click(*ben.at(*place))
    ben.page.keyboard.up("Shift")
    ben.key("Enter")
    ben.saved()
    assert [len(part) for part in ben.marks(read)[0]["parts"]] == [4, 3]
    ben.key("v")
    ben.page.mouse.dblclick(*ben.at(0.4, 0.3))
    ben.saved()
    assert [len(part) for part in ben.marks(read)[0]["parts"]] == [5, 3]
    ben.key("j", "Shift+Delete")
    ben.saved()
    assert [len(part) for part in ben.marks(read)[0]["parts"]] == [4, 3]


def test_enter_submits_and_the_next_study_stands_there(enter):
    cyd = enter("cyd")
    read = fresh(cyd, 0)
    cyd.key("Enter")
    until(lambda: "Mark something" in cyd.toast(), "what is missing")
    assert cyd.api(f"/reads/{read}")["state"] != "submitted"
    cyd.drag(LINE)
    cyd.key("Enter")
    following, third = (row["read"] for row in cyd.api("/worklist?limit=200")["rows"][1:3])
    cyd.ready(following)
    until(lambda: cyd.api(f"/reads/{read}")["state"] == "submitted", "submitted")
    cyd.key("y")
    cyd.key("Enter")
    cyd.ready(third)
    until(lambda: cyd.api(f"/reads/{following}")["state"] == "submitted", "submitted, with nothing marked")
    cyd.key("Backspace")
    cyd.ready(following)
    cyd.drag(LINE)
    until(lambda: "closed" in cyd.toast(), "that the read is closed")
    assert kinds(cyd, following) == ["nothing", "submit"]
    # the last of the queue leads to the worklist, whatever was fetched ahead before its neighbours were submitted
    cyd.key("Enter")
    last = [row["read"] for row in cyd.api("/worklist?limit=200")["rows"]][2:]
    for read in last:
        cyd.ready(read)
        cyd.key("y", "Enter")
    cyd.page.locator(".screen.worklist").wait_for()
    assert {row["state"] for row in cyd.api("/worklist?limit=200")["rows"]} == {"submitted"}


def test_a_study_that_comes_late_takes_no_key_from_the_one_in_front(enter):
    ben = enter("ben")
    late, front = (row["read"] for row in ben.api("/worklist?limit=200")["rows"][-2:])
    held = []
    ben.show("worklist")
    ben.page.route(f"**/api/v1/reads/{late}", lambda route: held.append(route))
    ben.open(f"read/{late}")
    until(lambda: ben.page.evaluate("1") and held, "the first one is asked for")
    ben.open(f"read/{front}")
    ben.ready(front)
    said = ben.page.locator(".head-centre").inner_text(), ben.page.title()
    for route in held:
        with ben.page.expect_response(f"**/api/v1/reads/{late}"):
            route.continue_()
    # what it would still ask for, and be shown with
    ben.page.wait_for_timeout(300)
    assert (ben.page.locator(".head-centre").inner_text(), ben.page.title()) == said
    ben.key("y")
    ben.saved()
    assert kinds(ben, late) == [] and kinds(ben, front) == ["nothing"]


def test_label_confidence_quality_and_comment_are_asked_and_kept(ada):
    read = fresh(ada, 0, "label")
    ada.drag(LINE)
    ada.key("Enter")
    until(lambda: "label" in ada.toast(), "that the label is missing")
    ada.page.locator(".view").first.focus()
    ada.key("2")
    ada.key("Enter")
    until(lambda: "sure" in ada.toast(), "that the confidence is missing")
    # its middle is where the slider stands before it was touched
    ada.page.get_by_label("How sure").click()
    ada.saved()
    assert ada.api(f"/reads/{read}")["state_of_marks"]["answers"]["confidence"] == 50
    ada.page.get_by_label("How sure").fill("80")
    ada.page.get_by_text("Something is wrong").click()
    ada.page.get_by_label("Cut off").check()
    ada.page.get_by_role("textbox", name="Comment").fill("<img src=x onerror=alert(1)> \u202etxet 😀")
    ada.page.get_by_role("textbox", name="Comment").blur()
    ada.saved()
    answers = ada.api(f"/reads/{read}")["state_of_marks"]["answers"]
    assert answers["label"] == "fracture" and answers["confidence"] == 80 and answers["quality"] == ["cut_off"]
    assert answers["comment"] == "<img src=x onerror=alert(1)> \u202etxet 😀"
    ada.page.reload()
    ada.ready(read)
    assert ada.page.get_by_role("textbox", name="Comment").input_value() == answers["comment"]
    assert ada.page.get_by_role("button", name="fracture", pressed=True).count() == 1


def test_a_whole_study_with_the_keyboard_alone(ada):
    ada.show("worklist")
    until(lambda: "start" in (ada.page.evaluate("document.activeElement.className || ''"), ada.key("Tab"))[0], "Start")
    ada.page.evaluate("document.querySelector('.start').focus()")
    ada.key("Enter")
    ada.ready()
    read = ada.page.evaluate("location.hash.split('/')[2]")
    before = len(ada.ops(read))
    ada.key("x", "d", "d")
    for _ in range(6):
        ada.key("Shift+ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown")
    ada.key("d", "Escape", "b", "d", "d", "Shift+ArrowDown", "Shift+ArrowDown", "d", "Escape", "Escape")
    ada.saved()
    drawn = ada.ops(read)[before:]
    assert [op["body"]["mark"]["kind"] for op in drawn] == ["box", "scribble"]
    assert drawn[1]["body"]["mark"]["strokes"][0]["pointer"] == "keys"
    ada.key("Tab")
    ada.key("Delete")
    ada.saved()
    assert kinds(ada, read)[-1] == "remove"
    ada.key("Enter")
    until(lambda: ada.api(f"/reads/{read}")["state"] == "submitted", "submitted by the keyboard")


TOOLS = ("b", "x", "p", "m", "e", "v", "w", "u")


@pytest.mark.parametrize("tools", [TOOLS[:2], pytest.param(TOOLS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_a_broken_stroke_leaves_every_tool_alive(enter, tools):
    lea = enter("lea")
    read = fresh(lea, 0)
    lea.key("m")
    lea.drag([(0.3, 0.2), (0.6, 0.2)])
    mouse = lea.page.mouse
    for tool in tools:
        for fault in ("Escape", "right", "blur", "lost"):
            lea.key(tool)
            mouse.move(*lea.at(0.3, 0.4))
            mouse.down()
            mouse.move(*lea.at(0.5, 0.5), steps=3)
            if fault == "Escape":
                lea.key("Escape")
            elif fault == "right":
                mouse.down(button="right")
                mouse.up(button="right")
            elif fault == "blur":
                lea.page.evaluate("window.dispatchEvent(new Event('blur'))")
            else:
                lea.page.evaluate(
                    "document.querySelector('.view').dispatchEvent("
                    "new PointerEvent('lostpointercapture', {pointerId: 1}))"
                )
            mouse.up()
            lea.key("Escape")
        lea.saved()
        before = len(lea.marks(read))
        # the tool itself still draws, where it draws anything by a stroke
        lea.drag([(0.62, 0.62), (0.72, 0.66), (0.78, 0.78)])
        lea.key("Escape")
        lea.saved()
        assert len(lea.marks(read)) == before + (tool in ("b", "x", "m")), tool
        lea.key("x")
        lea.drag([(0.6, 0.6), (0.8, 0.8)])
        lea.saved()
        after = len(lea.marks(read))
        assert after == before + 1 + (tool in ("b", "x", "m")), tool
        for _ in range(after - before):
            lea.key("Control+z")
        lea.saved()
        assert len(lea.marks(read)) == before, tool
