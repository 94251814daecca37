"""Several readers, then agreement and a decision, in a real browser; maps and gaze under the cursor exactly."""

import shlex

import numpy as np
import pytest

from sightline.cli.main import parse_command
from tests.support.workstation_answers import gaze_samples, map_of, stand_in
from tests.support.workstation_page import until


def finish(person, place, number=0):
    """Mark a study, the first, and submit it."""
    read = person.open_read(number, "mark")["read"]
    person.key("x")
    person.drag(place)
    person.page.get_by_role("textbox", name="Comment").fill(f"by {person.page.url[:4]}")
    person.page.locator(".view").first.focus()
    person.key("Enter")
    until(lambda: person.api(f"/reads/{read}")["state"] == "submitted", "submitted")
    return read


def test_two_readers_differ_and_a_third_decides(enter):
    ada, ben = enter("ada"), enter("ben")
    reads = [finish(ada, [(0.3, 0.3), (0.5, 0.5)]), finish(ben, [(0.35, 0.35), (0.6, 0.6)])]
    before = [ada.marks(reads[0]), ben.marks(reads[1])]
    jo = enter("jo")
    jo.show("adjudicate")
    text = jo.page.locator(".side").inner_text()
    assert "Ada" not in text and "Ben" not in text and "A" in text and "B" in text
    jo.page.get_by_role("button", name="Union").click()
    until(lambda: jo.page.get_by_role("button", name="Union").get_attribute("aria-pressed") == "true", "merged")
    jo.page.get_by_role("button", name="Take A").click()
    with jo.page.expect_response("**/api/v1/outcomes") as answered:
        jo.page.get_by_role("button", name="Decide").click()
    outcome = answered.value
    assert outcome.status == 201, outcome.text()
    assert outcome.json()["how"] == "take"
    until(lambda: "decided" in jo.page.locator(".side .pick-list").inner_text(), "decided")
    assert [ada.marks(reads[0]), ben.marks(reads[1])] == before


def test_a_study_goes_back_to_its_reader_with_words(enter):
    jo = enter("jo")
    jo.show("adjudicate")
    jo.page.get_by_role("button", name="Send B back").click()
    until(lambda: "why" in jo.toast(), "a comment is asked for")
    jo.page.get_by_label("Comment").fill("Please look at <b>the rim</b>.")
    jo.page.get_by_role("button", name="Send B back").click()
    until(lambda: "sent back" in jo.toast(), "sent back")
    people = [enter(name) for name in ("ada", "ben")]
    returned = [(person, row) for person in people for row in person.api("/worklist?state=returned")["rows"]]
    assert len(returned) == 1
    person, row = returned[0]
    person.open(f"read/{row['read']}")
    person.ready(row["read"])
    until(lambda: "Please look at <b>the rim</b>." in person.page.locator(".banner").inner_text(), "the words")
    person.drag([(0.6, 0.6), (0.7, 0.7)])
    person.key("Enter")
    until(lambda: person.api("/worklist?state=returned")["rows"] == [], "submitted again")


def test_a_drawing_stays_on_the_picture_and_nothing_is_said_in_words(enter):
    for name in ("ada", "ben"):
        finish(enter(name), [(0.3, 0.3), (0.5, 0.5)], 1)
    jo = enter("jo")
    task = jo.station.tasks["mark"]
    jo.show("adjudicate")
    waiting = jo.page.locator(".side .pick-list button")
    decide, comment = jo.page.get_by_role("button", name="Decide", exact=True), jo.page.get_by_label("Comment")
    open_one = waiting.filter(has_text="open")
    open_one.click()
    until(lambda: open_one.get_attribute("aria-pressed") == "true" and decide.count() == 1, "the one that is open")
    # typed words are there again
    comment.fill("not sure of the rim")
    study = jo.page.url.rsplit("/", 1)[1]
    waiting.filter(has_text="decided").first.click()
    until(lambda: study not in jo.page.url and comment.input_value() == "", "another study")
    open_one.click()
    until(lambda: comment.input_value() == "not sure of the rim", "the words again")
    jo.page.get_by_role("button", name="Union").click()
    until(decide.is_enabled, "merged")
    jo.page.get_by_role("button", name="Draw anew").click()
    until(decide.is_disabled, "nothing to decide on")
    jo.page.get_by_label("Nothing to mark").check()
    until(decide.is_enabled, "said in words")
    jo.drag([(0.5, 0.5), (0.95, 0.99)])
    until(lambda: not jo.page.get_by_label("Nothing to mark").is_checked(), "drawn")
    with jo.page.expect_response("**/api/v1/outcomes") as answered:
        decide.click()
    assert answered.value.status == 201, answered.value.text()
    found = jo.api(f"/adjudicate/{study}?task={task}")["outcome"]
    assert (found["how"], found["comment"]) == ("drawn", "not sure of the rim")
    # the hand went on below the picture, whose last row ends at 240
    assert found["marks"][0]["stop"][0] == 240


def test_the_list_stays_when_a_study_cannot_be_shown_and_the_head_says_which_is(enter):
    finish(enter("cyd"), [(0.3, 0.3), (0.5, 0.5)])
    cyd = enter("cyd", locale="de-DE")
    other = cyd.api("/worklist")["rows"][1]["study"]
    for screen in ("compare", "gaze"):
        cyd.show(screen)
        assert cyd.page.locator(".head .study-title").inner_text() == "Untersuchung 1"
        assert cyd.page.locator('.side .pick-list [aria-pressed="true"]').all_inner_texts() == [
            cyd.page.locator(".side .pick-list button").inner_text()
        ]
    cyd.show("compare")
    assert {"A", "ich"} <= {words.split()[0] for words in cyd.page.locator(".side li").all_inner_texts()}
    cyd.expected.append("404")
    cyd.open(f"compare/{other}")
    until(lambda: "Untersuchung" in cyd.page.locator(".view-message").inner_text(), "why not")
    assert cyd.page.locator(".side .pick-list button").count() == 1
    cyd.show("worklist")
    assert cyd.page.locator(".head .study-title").count() == 0


def test_the_lead_sees_progress_makes_a_task_and_verifies(enter):
    lea, ada = enter("lea"), enter("ada")
    ada.show("worklist")
    # others have read two studies, which she has yet to read
    lea.show("agreement")
    assert lea.page.locator(".page-in").inner_text().startswith("2 submitted studies are left out here until you")
    lea.show("lead")
    lea.page.get_by_text("New task").click()
    lea.page.get_by_label("Name of the task").fill("second task")
    lea.page.get_by_role("button", name="Make the task").click()
    until(lambda: "task is made" in lea.toast(), "made")
    lea.page.locator(".card").nth(1).locator("select").first.select_option(label="second task")
    lea.page.get_by_role("group", name="Readers").get_by_label("Ada").check()
    lea.page.get_by_role("button", name="Deal", exact=True).click()
    until(lambda: "dealt" in lea.toast(), "dealt")
    assert lea.toast() == "4 reads were dealt."
    # a page that stood open sees it too, the next time that it shows the worklist
    ada.show("help")
    ada.show("worklist")
    assert "second task" in ada.page.get_by_label("Task", exact=True).locator("option").all_inner_texts()
    lea.page.get_by_role("button", name="Verify the chain").click()
    until(lambda: "as they were written" in lea.page.locator(".card").last.inner_text(), "verified")
    # COCO holds marks as drawn: no rule that merges them is offered with it
    form, rules = (lea.page.locator(".card").nth(3).locator("select").nth(n) for n in (0, 1))
    assert "consensus" in rules.locator("option").all_inner_texts()
    form.select_option(label="COCO")
    assert rules.locator("option").all_inner_texts()[:2] == ["of each reader", "Ada"]
    # what the page says to type is a command, word for word
    commands = lea.page.locator("code").all_text_contents()
    assert "sightline reads list KEEP" in commands and len(commands) >= 8
    for words in commands:
        parse_command(shlex.split(words)[1:])


@pytest.fixture
def looking(enter):
    lea = enter("lea")
    read = lea.api("/worklist")["rows"][1]["read"]
    stand_in(lea, read)
    return lea, lea.api(f"/reads/{read}")["study"]["images"][0]


LEAVE_OUT = """() => { const asked = window.fetch; window.fetch = async (address, how) => {
  const answer = await asked(address, how);
  if (!String(address).includes('/compare/')) return answer;
  const found = await answer.json();
  found.runs.forEach((run, i) => { delete run.images[found.images[i].key]; });
  return Response.json(found); }; }"""


def test_each_picture_shows_the_runs_that_have_a_map_of_it(looking):
    """The first run has no map of the first picture, the second none of the second."""
    lea, _ = looking
    lea.show("help")
    lea.page.evaluate(LEAVE_OUT)
    lea.show("compare")
    heads = lea.page.locator(".view .corner.nw")
    until(lambda: heads.all_inner_texts() == ["unguided"], "the other run")
    lea.page.locator(".side .tab").nth(1).click()
    until(lambda: heads.all_inner_texts() == ["guided"], "the one of the second picture")


def test_values_under_the_cursor_are_the_stored_map_exactly(looking):
    lea, image = looking
    lea.show("compare")
    until(lambda: lea.page.locator(".view").count() == 2, "two runs")
    view = lea.page.evaluate("document.querySelector('.view').getBoundingClientRect().toJSON()")
    rows, columns = image["rows"], image["columns"]
    scale = min(view["width"] / columns, view["height"] / rows)
    for cell in ((0, 0), (3, 2), (6, 5)):
        row, column = (cell[0] + 0.5) * rows / 7, (cell[1] + 0.5) * columns / 6
        x = view["x"] + view["width"] / 2 + (column - columns / 2) * scale
        y = view["y"] + view["height"] / 2 + (row - rows / 2) * scale
        wanted = [float(map_of(run, 0)[cell]) for run in ("one", "two")]

        def look(wanted=wanted, x=x, y=y):
            lea.page.mouse.move(x, y)
            found = lea.page.locator(".strip [data-run]").evaluate_all(
                "(all) => all.map((one) => Number(one.dataset.value))"
            )
            return found == wanted

        until(look, f"the values of cell {cell}")


def test_colours_are_those_of_the_overlay(looking):
    from sightline.plots.overlay import blend_heat_over

    lea, _ = looking
    lea.open("compare")
    level = np.linspace(0, 1, 64)
    cells = lea.page.evaluate(
        """async (levels) => { const h = await import('/static/picture/heat.js');
        const map = { shape: [1, levels.length], values: Float32Array.from(levels) };
        const made = h.heatCanvas(map, { low: 0, high: 1, smooth: false });
        return [0, 90, 200, 255].map((grey) => {
          const c = document.createElement('canvas'); c.width = levels.length; c.height = 1;
          const x = c.getContext('2d'); x.fillStyle = `rgb(${grey} ${grey} ${grey})`; x.fillRect(0, 0, c.width, 1);
          x.drawImage(made.canvas, 0, 0); return [...x.getImageData(0, 0, c.width, 1).data]; }); }""",
        level.tolist(),
    )  # fmt: skip
    for grey, got in zip((0, 90, 200, 255), cells, strict=True):
        wanted = blend_heat_over(np.full((1, 64), grey / 255, np.float32), level[None]) * 255
        assert np.abs(np.array(got).reshape(1, 64, 4)[..., :3] - np.rint(wanted)).max() <= 1


def test_maps_are_enlarged_as_plots_does(looking):
    from sightline.structures.resampling import upsample_map

    lea, _ = looking
    lea.open("compare")
    cells = map_of("one", 1)
    got = lea.page.evaluate(
        """async (v) => { const h = await import('/static/picture/heat.js');
        return [...h.enlarged(Float32Array.from(v), 7, 6, 8)]; }""",
        cells.ravel().tolist(),
    )
    assert np.abs(np.array(got).reshape(56, 48) - upsample_map(cells, (56, 48))).max() < 1e-5


def test_the_dot_of_a_gaze_is_the_last_sample_at_or_before_the_time(looking):
    lea, image = looking
    lea.show("gaze")
    samples = gaze_samples(image["rows"], image["columns"])
    for time in (0.0, 1.0, 3.333, 6.0):
        lea.page.locator(".timeline").evaluate(
            "(line, t) => { line.value = t; line.dispatchEvent(new Event('input')); }", time
        )
        shown = float(lea.page.locator(".timeline").input_value())
        wanted = [s for s in samples if s[2] <= shown][-1][:2]
        until(
            lambda w=wanted: np.allclose(
                [float(v) for v in lea.page.locator(".view").get_attribute("data-dot0").split()], w
            ),
            f"the dot at {time}",
        )
