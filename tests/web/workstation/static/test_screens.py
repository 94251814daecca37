"""Every screen: no fault for axe in both themes, no fault in the console, no text outside the tables of words."""

import json
import re
from pathlib import Path

import pytest

from tests.support.server_words import server_words
from tests.support.workstation_answers import stand_in
from tests.support.workstation_page import until

STATIC = Path(__file__).parents[4] / "src" / "sightline" / "web" / "workstation" / "static"
SCREENS = {
    "worklist": ".list tbody tr a", "compare": ".side h1", "agreement": ".page h1", "adjudicate": ".side h1",
    "gaze": ".side h1", "units": ".page h1", "results": ".page h1", "lead": ".card h2", "help": ".keys table",
}  # fmt: skip


def words(language="en"):
    return json.loads((STATIC / "words" / f"{language}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def axe():
    """axe-core's own code; the page's policy lets no script in by a tag, so it is evaluated from outside."""
    from axe_playwright_python.base import AXE_SCRIPT

    return AXE_SCRIPT


# what another theme can change: it sets colours and nothing else
OF_COLOURS = ["color-contrast", "link-in-text-block"]
# the theme, and the rules that are asked of it alone (none: all)
IN_DARK, IN_LIGHT = [("dark", ())], [("light", OF_COLOURS)]


def faults_of(axe, page, only=()):
    page.evaluate(f"() => {{ if (!window.axe) {{ {axe} }} }}")
    asked = {"resultTypes": ["violations"], **({"runOnly": list(only)} if only else {})}
    answer = page.evaluate("(asked) => axe.run(document, asked)", asked)
    return [
        (one["id"], [node["html"][:160] for node in one["nodes"]], one["nodes"][0]["failureSummary"])
        for one in answer["violations"]
    ]


def theme(person, name):
    person.page.evaluate("(name) => { document.documentElement.dataset.theme = name; }", name)


@pytest.mark.parametrize(("name", "only"), [*IN_DARK, pytest.param(*IN_LIGHT[0], marks=pytest.mark.slow)])
def test_axe_finds_nothing_on_any_screen(enter, axe, name, only):
    lea = enter("lea")
    stand_in(lea, lea.api("/worklist")["rows"][0]["read"])
    found = {}
    for screen, there in SCREENS.items():
        lea.show(screen)
        assert lea.page.locator(there).count(), screen
        theme(lea, name)
        found[screen] = faults_of(axe, lea.page, only)
    assert {where: faults for where, faults in found.items() if faults} == {}


@pytest.mark.parametrize("themes", [IN_DARK, pytest.param((*IN_DARK, *IN_LIGHT), marks=pytest.mark.slow)])
def test_axe_finds_nothing_on_the_marking_screen(enter, axe, themes):
    ada = enter("ada")
    for task, drawn in (("mark", True), ("label", False)):
        ada.open_read(3 if drawn else 1, task)
        if drawn:
            ada.key("x")
            ada.drag([(0.2, 0.2), (0.5, 0.5)])
            ada.drag([(0.6, 0.2), (0.7, 0.5)])
            ada.key("Delete")
            ada.saved()
            ada.page.locator("details.gone summary").click()
        ada.page.locator("details.quality summary").click()
        for name, only in themes:
            theme(ada, name)
            assert faults_of(axe, ada.page, only) == [], (task, name)


def test_axe_finds_nothing_before_signing_in_nor_in_the_dialog_over_the_page(enter, axe, chromium, station):
    page = chromium.new_context(locale="en-US", reduced_motion="reduce").new_page()
    page.goto(station.address)
    page.locator(".signin-form").wait_for()
    for name, only in (*IN_DARK, *IN_LIGHT):
        page.evaluate("(name) => { document.documentElement.dataset.theme = name; }", name)
        assert faults_of(axe, page, only) == [], name
    page.context.close()
    ben = enter("ben")
    ben.open_read(2)
    ben.page.context.clear_cookies()
    ben.drag([(0.2, 0.2), (0.4, 0.4)])
    ben.page.locator("dialog.over").wait_for()
    assert faults_of(axe, ben.page) == []
    ben.expected.append("status of 401")


def test_english_and_german_have_the_same_words_and_fill_the_same_places():
    english, german = words("en"), words("de")
    assert list(english) == list(german)
    for key, text in english.items():
        assert german[key].strip() and text.strip(), key
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", german[key])), key


def test_everything_that_the_server_can_say_has_german_words():
    german = words("server_de")
    assert [one for one in server_words() if one not in german and one not in ("{}: {}", "{}: {}.")] == []
    for text, said in german.items():
        assert said.strip() and text.count("{}") == said.count("{}"), text


def test_the_server_is_understood_in_german(chromium, station):
    page = chromium.new_context(locale="de-DE", reduced_motion="reduce").new_page()
    page.goto(station.address)
    page.locator(".signin-form").wait_for()
    page.locator("input[name=username]").fill("nobody")
    page.locator("input[name=password]").fill("ein ganz falsches Passwort")
    page.locator(".signin-form button.primary").click()
    page.get_by_text("Name oder Passwort ist falsch.").wait_for()
    said = page.evaluate(
        """async () => { const { ofServer } = await import("/static/page/words.js");
        return [ofServer("Wait 12 s."), ofServer("wrist (1) is no class."), ofServer("something new")]; }"""
    )
    assert said == ["12 s warten.", "wrist (1) ist keine Klasse.", "something new"]
    page.context.close()


def test_every_word_that_the_page_asks_for_is_there_and_none_is_left_over():
    english = set(words()) - {"_tag"}
    code = "\n".join(path.read_text(encoding="utf-8") for path in STATIC.rglob("*.js"))
    asked = set(re.findall(r"""\bt\(\s*["']([\w.]+)["']""", code)) | set(re.findall(r'tell\("([\w.]+)"', code))
    asked |= set(re.findall(r'\? "([\w.]+)" : "[\w.]+"\)', code))
    plain = {re.sub(r"\.(one|other)$", "", key) for key in english}
    assert {key for key in asked if "." in key or key in ("again", "not_for_diagnosis")} - plain - english == set()
    begun = tuple(re.findall(r"t\(`([\w.]+)\$\{", code))
    named = set(re.findall(r'"([\w.]+)"', code))
    left = {key for key in plain if key not in named and not key.startswith(begun)}
    assert left == set()


@pytest.fixture
def made_up(enter):
    """The page in a language that is longer by 40 % and stands in brackets."""

    def come(direction, name="lea"):
        person = enter(name)
        table = {
            key: text if key.startswith("_") else f"[{text}{'~' * (2 * len(text) // 5)}]"
            for key, text in words().items()
        }
        table |= {"_tag": "en", "_dir": direction}
        person.page.route("**/static/words/xx.json", lambda route: route.fulfill(json=table))
        person.page.route("**/static/words/en.json", lambda route: route.fulfill(json=table))
        person.page.route("**/static/words/de.json", lambda route: route.fulfill(json=table))
        return person

    return come


# texts that are data or the same in every language
DATA = re.compile(
    r"^[\d\s.,:;%×/|()–·+-]*s?$|^sightline|^small|^Study \d|^PA|^LAT|^[ABCLR]$|^(ada|ben|cyd|lea|jo|mark|label)$"
    r"|fracture"
    r"|^(English|Deutsch|Dice|unguided|block4|endplate)$|^(Ada|Ben|Cyd|Lea|Jo)\b|^([cp]|metric|value|low|high)$"
    r"|^guided|^AUC|^seen <b>"
    r"|^marks-folder|finding$|kappa|^ICC"
)


@pytest.mark.parametrize("direction", ["ltr", pytest.param("rtl", marks=pytest.mark.slow)])
def test_no_text_stands_outside_the_table_of_words_and_nothing_is_cut(made_up, direction):
    lea = made_up(direction)
    stand_in(lea, lea.api("/worklist")["rows"][0]["read"])
    for screen, there in SCREENS.items():
        lea.show(screen)
        assert lea.page.locator(there).count()
        texts = lea.page.evaluate(
            """() => { const out = []; const walk = document.createTreeWalker(
              document.querySelector('#app'), NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) { const node = walk.currentNode; const parent = node.parentElement;
              if (parent.closest('code, pre, kbd, script, .chord, svg, .matrix') || !node.textContent.trim()) continue;
              if (parent.closest('td') && parent.closest('.card')) continue;
              out.push(node.textContent.trim()); } return out; }"""
        )
        strange = [
            text for text in texts if not (text.startswith("[") and text.endswith("]")) and not DATA.search(text)
        ]
        strange = [text for text in strange if "~]" not in text]
        assert strange == [], screen
        assert lea.page.evaluate("document.documentElement.dir") == direction
        wide = lea.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], screen


def test_names_and_comments_are_never_read_as_html(chromium, tmp_path):
    from tests.support.workstation_page import running, sign_in

    hostile = "<img src=x onerror=alert(1)>\u202e&amp;😀"
    with running(tmp_path, {"eve": "lead"}, {hostile: {"readers": ["eve"]}, "other": {"readers": ["eve"]}}) as station:
        eve = sign_in(chromium, station, "eve")
        stand_in(eve, eve.api("/worklist")["rows"][0]["read"])
        for screen in ("worklist", "lead", "agreement", "adjudicate"):
            eve.show(screen)
            until(lambda: hostile in eve.page.evaluate("document.body.textContent"), f"the name on {screen}")
            assert eve.page.locator("img").count() == 0
        eve.page.context.close()


def test_two_hundred_percent_loses_no_control(enter):
    ada = enter("ada", device_scale_factor=2)
    ada.page.set_viewport_size({"width": 683, "height": 384})
    ada.open_read(2)
    for name in ("Scribble", "Undo", "Fit"):
        ada.page.get_by_role("button", name=name, exact=True).scroll_into_view_if_needed()
        assert ada.page.get_by_role("button", name=name, exact=True).is_visible()
    submit = ada.page.locator("button.submit")
    submit.scroll_into_view_if_needed()
    box = submit.bounding_box()
    assert box["y"] + box["height"] <= 384 + 1 and box["width"] > 100


# controls that another element covers, or that lie out of sight
CONTROLS = ".rail button, .strip :is(select, input, button), .submit"
OUT_OF_REACH = """(controls) => [...document.querySelectorAll(controls)].filter((one) => {
  const box = one.getBoundingClientRect();
  const there = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return !there || !one.contains(there);
}).map((one) => one.getAttribute('aria-label') || one.textContent)"""


def test_a_tablet_shows_every_tool(enter):
    """Held upright, the column of tools was cut beside the picture: the last ones and `?` were out of sight."""
    ada = enter("ada", has_touch=True)
    ada.open_read(2)
    assert ada.page.locator(".rail button").count() >= 15
    for width, height in ((820, 1180), (768, 1024), (1024, 768)):
        ada.page.set_viewport_size({"width": width, "height": height})
        until(lambda: ada.page.evaluate(OUT_OF_REACH, CONTROLS) == [], f"every tool at {width} x {height}", 5)


HEAD_WORDS = ".head :is(.brand, .menu a, .study-title, .count, .caution, .saving, .who summary)"
# pairs of elements whose boxes share more than a rounded pixel
CROSSING = """(places) => {
  const found = [...document.querySelectorAll(places)].map((one) => [one.textContent, one.getBoundingClientRect()]);
  return found.flatMap(([name, a], i) => found.slice(i + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5
  ).map(([other]) => `${name} | ${other}`));
}"""


def test_the_place_under_the_pointer_does_not_run_into_the_zoom(enter):
    """As wide as a plane of a CT at 1024 px."""
    ada = enter("ada")
    ada.open_read(2)
    ada.page.evaluate("document.querySelectorAll('.view').forEach((one) => { one.style.width = '230px'; })")
    ada.page.mouse.move(*ada.at(0.5, 0.5))
    until(lambda: "row" in ada.page.locator(".corner.sw").first.inner_text(), "the place")
    ada.page.evaluate("document.querySelector('.corner.sw').textContent = 'row 123.4, column 456.7  -1024 HU'")
    corners = ".view:first-child :is(.corner.sw, .corner.se)"
    assert ada.page.locator(corners).count() == 2
    assert ada.page.evaluate(CROSSING, corners) == []
    # and on a phone the slice stands below the plane's name
    ada.page.set_viewport_size({"width": 390, "height": 844})
    ada.page.evaluate("""document.querySelectorAll('.view').forEach((one) => { one.style.width = '128px';
      one.querySelector('.corner.nw').textContent = 'Sagittal';
      one.querySelector('.corner.ne').textContent = '146 of 512'; })""")
    assert ada.page.evaluate(CROSSING, ".view:first-child :is(.corner.nw, .corner.ne)") == []


@pytest.mark.parametrize("width", [400, 500, 1366])
def test_the_heads_words_do_not_run_into_each_other(enter, width):
    ada = enter("ada", locale="de-DE", viewport={"width": width, "height": 800})
    ada.open_read(2)
    assert ada.page.locator(HEAD_WORDS).count() >= 7
    assert ada.page.evaluate(CROSSING, HEAD_WORDS) == []


def test_what_the_name_opens_lies_within_the_screen(enter):
    """Where the head wraps, the name came to the beginning of its second line, and what it opens lay out of sight."""
    ada = enter("ada")
    ada.show("worklist")
    ada.page.locator(".who summary").click()
    for width in (390, 600, 768):
        ada.page.set_viewport_size({"width": width, "height": 800})
        assert ada.page.evaluate(OUT_OF_REACH, ".who-box :is(a, button)") == [], width


def test_on_a_phone_tables_of_the_lead_are_read_and_an_empty_list_says_so_within_its_edge(enter):
    """A date stood one word a line, five lines a row; and what an empty list says went on beyond its edge."""
    lea, jo = enter("lea", viewport={"width": 390, "height": 844}), enter("jo", viewport={"width": 390, "height": 844})
    lea.show("lead")
    rows = lea.page.locator(".screen.lead .scroll tbody tr")
    assert rows.count() >= 5
    assert max(row.bounding_box()["height"] for row in rows.all()) < 75
    jo.show("worklist")
    words, box = (jo.page.locator(one).bounding_box() for one in (".empty p", ".list-box"))
    assert box["x"] <= words["x"] and words["x"] + words["width"] <= box["x"] + box["width"]


def test_keys_can_be_bound_anew_and_conflicts_are_shown(enter):
    cyd = enter("cyd")
    cyd.show("help")
    button = cyd.page.locator('[data-action="tool.box"]')
    button.click()
    cyd.key("Control+t")
    until(lambda: "belongs to the browser" in cyd.toast(), "the browser's own is refused")
    button.click()
    cyd.key("b")
    warning = cyd.page.locator(".page > p[role=alert]")
    until(lambda: "Box" in warning.inner_text() and "Scribble" in warning.inner_text(), "the conflict")
    button.click()
    cyd.key("z")
    until(lambda: not warning.is_visible(), "no conflict")
    until(lambda: cyd.api("/me")["settings"].get("keys") == {"tool.box": ["z"]}, "kept at the server")
    cyd.open_read(0)
    cyd.key("z")
    box = cyd.page.get_by_role("button", name="Box", exact=True)
    until(lambda: box.get_attribute("aria-pressed") == "true", "the box in hand")
    cyd.key("x")
    cyd.show("help")
    cyd.page.get_by_role("button", name="Back to the defaults").click()
    until(lambda: "keys" not in cyd.api("/me")["settings"], "back to the defaults")


def test_no_two_actions_share_a_key_and_every_action_has_words(enter):
    ada = enter("ada")
    ada.open("help")
    conflicts, ids, browsers = ada.page.evaluate(
        """async () => { const k = await import('/static/keys.js'); const all = k.ACTIONS;
        const browsers = all.flatMap((a) => a.keys).filter(k.isBrowsers);
        return [new k.Keys().conflicts(), all.map((a) => a.id), browsers]; }"""
    )
    assert conflicts == [] and browsers == []
    table = words()
    assert [one for one in ids if f"key.{re.sub(r'[.][0-9]$', '.n', one)}" not in table] == []
    assert len(ids) == len(set(ids))


def test_the_page_asks_nothing_from_elsewhere_and_its_files_are_small(enter, station):
    ada = enter("ada")
    asked = []
    ada.page.on("request", lambda request: asked.append(request.url))
    ada.open_read(1)
    assert all(url.startswith(station.address) or url.startswith(("data:", "blob:")) for url in asked)
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)", "".join(p.read_text("utf-8") for p in STATIC.rglob("*.*s"))
    )


def test_german_is_german(enter):
    jo = enter("jo")
    jo.open("help")
    jo.page.get_by_label("Language").select_option("de")
    jo.page.locator('html[lang="de"]').wait_for()
    jo.page.get_by_role("heading", name="Tasten und Hilfe").wait_for()
    jo.page.get_by_label("Sprache").select_option("en")
    jo.page.locator('html[lang="en"]').wait_for()
    until(lambda: jo.api("/me")["settings"].get("language") == "en", "kept at the server")
