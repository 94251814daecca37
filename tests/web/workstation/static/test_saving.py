"""Nothing a reader does is lost: words of saving, network gone, session over, two windows, refusals, the outbox."""

from tests.support.workstation_page import until

LINE = [(0.3, 0.3), (0.5, 0.5), (0.6, 0.7)]


def expected(person, *words):
    """Faults that the browser itself reports for requests that were made to fail, now or a little later."""
    person.expected.extend(words)


def kept(person):
    """Operations in IndexedDB."""
    return person.page.evaluate(
        """() => new Promise((resolve) => { const open = indexedDB.open('sightline'); open.onsuccess = () => {
        const all = open.result.transaction('ops').objectStore('ops').getAll();
        all.onsuccess = () => { open.result.close(); resolve(all.result.map((one) => one.id)); }; }; })"""
    )


def test_saved_leaves_nothing_on_this_computer(enter):
    ada = enter("ada")
    read = ada.open_read(0)["read"]
    ada.drag(LINE)
    ada.saved()
    assert ada.saying() == "saved"
    until(lambda: kept(ada) == [], "the outbox is empty")
    assert len(ada.ops(read)) == 1


def test_without_the_network_marks_are_kept_and_sent_later_once_each(enter):
    ada = enter("ada")
    read = ada.open_read(1)["read"]
    ada.page.context.set_offline(True)
    for k in range(4):
        ada.drag([(0.2 + 0.1 * k, 0.3), (0.25 + 0.1 * k, 0.6)])
    until(lambda: ada.saying() == "not reached: 4 kept on this computer", "the words")
    # the words count what is on its way to the disk too
    until(lambda: len(kept(ada)) == 4, "all lie on the disk")
    assert ada.page.locator(".head .saving").get_attribute("aria-live") == "polite"
    ada.page.context.set_offline(False)
    ada.saved()
    ids = [op["id"] for op in ada.ops(read)]
    assert len(ids) == len(set(ids)) == 4
    expected(ada, "ERR_INTERNET_DISCONNECTED")


def test_a_page_that_was_closed_without_network_sends_when_it_is_opened_again(enter):
    ada = enter("ada")
    read = ada.open_read(2)["read"]
    ada.page.route("**/api/v1/reads/*/ops", lambda route: route.abort())
    ada.drag(LINE)
    until(lambda: len(kept(ada)) == 1, "kept")
    ids = kept(ada)
    ada.page.close(run_before_unload=False)
    ada.page = ada.page.context.new_page()
    ada.open("worklist")
    until(lambda: [op["id"] for op in ada.ops(read)] == ids, "sent by the next page")
    expected(ada, "ERR_FAILED")


def test_an_answer_that_was_lost_does_not_double_an_operation(enter):
    ada = enter("ada")
    read = ada.open_read(3)["read"]
    lost = []

    def lose(route):
        route.fetch()
        lost.append(1)
        route.abort()

    ada.page.route("**/api/v1/reads/*/ops", lose, times=2)
    ada.drag(LINE)
    ada.drag([(0.1, 0.1), (0.2, 0.2)])
    ada.saved()
    assert len(lost) == 2 and len(ada.ops(read)) == 2
    expected(ada, "ERR_FAILED")


def test_faults_of_the_server_are_waited_out(enter):
    ben = enter("ben")
    read = ben.open_read(0)["read"]
    statuses = [500, 503]

    def fail(route):
        route.fulfill(status=statuses.pop(), json={"message": "x", "remedy": ""})

    for _ in range(2):
        ben.page.route("**/api/v1/reads/*/ops", fail, times=1)
        ben.drag(LINE)
        ben.saved()
    assert len(ben.ops(read)) == 2
    expected(ben, "status of 50")


def test_an_operation_that_the_server_refuses_is_kept_shown_and_does_not_hold_up_others(enter):
    ben = enter("ben")
    read = ben.open_read(1)["read"]
    answer = {"message": "Same id, other content.", "remedy": "", "conflicts": [{"id": "x", "server": {"kind": "add"}}]}
    ben.page.route("**/api/v1/reads/*/ops", lambda route: route.fulfill(status=409, json=answer), times=2)
    ben.drag(LINE)
    until(lambda: ben.saying() == "1 not taken by the server", "the words")
    alarm = ben.page.locator(".alarm")
    until(lambda: "Same id, other content." in alarm.inner_text(), "the server's words")
    alarm.get_by_text("Show both").click()
    until(lambda: '"kind": "add"' in alarm.inner_text(), "both")
    ben.drag([(0.1, 0.1), (0.3, 0.2)])
    until(lambda: len(ben.ops(read)) == 1, "the next one is saved")
    # the page hears of it after the server has it
    until(lambda: len(kept(ben)) == 1, "only the refused one is kept here")
    ben.page.get_by_role("button", name="Give mine up").click()
    ben.saved()
    ben.ready(read)
    assert len(ben.marks(read)) == 1
    expected(ben, "status of 409")


def test_a_study_is_not_submitted_without_what_the_server_refused(enter):
    lea = enter("lea")
    read = lea.open_read(3)["read"]
    held, refusal = [], {"status": 413, "json": {"message": "Too much.", "remedy": ""}}

    def hold(route):
        adds = any(op["kind"] == "add" for op in route.request.post_data_json["ops"])
        held.append(route) if adds else route.continue_()

    def refuse(number):
        # a handler of playwright runs while the page is asked for something
        until(lambda: (lea.page.evaluate("1"), len(held) > number)[1], "the act is on its way")
        held[number].fulfill(**refusal)

    lea.page.route("**/api/v1/reads/*/ops", hold)
    lea.drag(LINE)
    # submitted before the server has said anything of the mark; it is asked twice before an act is set aside
    lea.key("Enter")
    lea.page.locator(f'.screen.read[data-read="{read}"]').wait_for(state="detached")
    refuse(0)
    refuse(1)
    alarm = lea.page.locator(".alarm")
    until(lambda: "Too much. Its study is not submitted" in alarm.inner_text(), "that it is not submitted")
    # what else was sent with the mark was taken
    assert kept(lea) == [op["id"] for op in held[0].request.post_data_json["ops"] if op["kind"] == "add"]
    alarm.get_by_role("button", name="Open the study").click()
    lea.ready(read)
    assert lea.api(f"/reads/{read}")["state"] != "submitted"
    # nor when it is tried again, until somebody has decided
    lea.key("y", "Enter")
    until(lambda: "1 act in this study was not taken" in lea.toast(), "why it is not submitted")
    assert "would be missing" in lea.page.locator(".panel .missing").inner_text()
    assert "submit" not in [op["kind"] for op in lea.ops(read)]
    alarm.get_by_role("button", name="Give mine up").click()
    until(lambda: kept(lea) == [], "nothing is set aside")
    lea.ready(read)
    lea.key("Enter")
    until(lambda: lea.api(f"/reads/{read}")["state"] == "submitted", "submitted")
    expected(lea, "status of 413")


def test_a_session_that_is_over_asks_over_the_page_and_sends_then(enter, station):
    cyd = enter("cyd")
    read = cyd.open_read(0)["read"]
    cookies = cyd.page.context.cookies()
    dialog = cyd.page.locator("dialog.over")
    mouse = cyd.page.mouse
    mouse.move(*cyd.at(*LINE[0]))
    mouse.down()
    mouse.move(*cyd.at(*LINE[1]), steps=4)
    cyd.page.context.clear_cookies()
    # a study is fetched ahead in the middle of a stroke: the stroke is ended first
    asked = "() => fetch('/api/v1/me').then((answer) => answer.status)"
    assert cyd.page.evaluate(asked) == 401
    over = "() => import('/static/kept/server.js').then((made) => made.get('/me')).catch((error) => error.status)"
    assert cyd.page.evaluate(over) == 401
    assert not dialog.count()
    mouse.move(*cyd.at(*LINE[2]), steps=4)
    assert not dialog.count()
    mouse.up()
    dialog.wait_for()
    until(lambda: cyd.saying() == "signed out: 1 kept on this computer", "the words")
    until(lambda: "1 act is kept on this computer" in dialog.inner_text(), "the dialog says it too")
    dialog.get_by_label("Name").fill("cyd")
    dialog.get_by_label("Password").fill("wrong words of nonsense")
    dialog.get_by_role("button", name="Sign in").click()
    until(lambda: "wrong" in dialog.inner_text(), "the wrong password is said")
    dialog.get_by_label("Password").fill("four words of nonsense cyd")

    def signed_in():
        # failures of other tests from this address may ask for a pause first
        cyd.page.evaluate("() => document.querySelector('dialog.over button[type=submit]:not([disabled])')?.click()")
        return not dialog.count()

    until(signed_in, "signed in")
    cyd.saved()
    assert len(cyd.ops(read)) == 1
    assert cookies
    station.signed["cyd"] = cyd.page.context.storage_state()
    expected(cyd, "status of 401")


def test_two_windows_never_overwrite_each_other(enter):
    cyd = enter("cyd")
    read = cyd.open_read(1)["read"]
    cyd.drag(LINE)
    cyd.saved()
    first, second = cyd.page, cyd.page.context.new_page()
    cyd.page = second
    cyd.open(f"read/{read}")
    cyd.ready(read)
    banner = second.locator(".banner")
    until(lambda: "another window" in banner.inner_text(), "the second one is told")
    cyd.drag([(0.1, 0.1), (0.2, 0.3)])
    until(cyd.toast, "why nothing is drawn")
    assert len(cyd.ops(read)) == 1
    banner.get_by_role("button", name="Work here instead").click()
    until(lambda: "another window" in first.locator(".banner").inner_text(), "the first one is told")
    cyd.ready(read)
    cyd.drag([(0.1, 0.1), (0.2, 0.3)])
    until(lambda: len(cyd.ops(read)) == 2, "the second one draws")
    cyd.page = first
    first.bring_to_front()
    cyd.drag([(0.7, 0.1), (0.8, 0.3)])
    until(cyd.toast, "why nothing is drawn")
    assert len(cyd.ops(read)) == 2
    first.locator(".banner").get_by_role("button", name="Work here instead").click()
    until(lambda: first.locator(".marks li .pick").count() == 2, "both marks are there")
    second.close()


def test_a_study_that_was_fetched_ahead_shows_what_another_window_drew_meanwhile(enter, station):
    ben = enter("ben")
    # a server that is slow for a second is not asked any longer: here it may be as slow as it likes
    ben.page.add_init_script(
        "const later = window.setTimeout; window.setTimeout = (act, ms, ...more) =>"
        " later(act, ms === 1000 ? 1e6 : ms, ...more);"
    )
    # studies that no other test here draws on
    rows = ben.api(f"/worklist?task={station.tasks['mark']}&limit=200")["rows"]
    reads = [row["read"] for row in rows][2:4]
    with ben.page.expect_response(f"**/api/v1/reads/{reads[1]}"):  # the next study is fetched ahead
        ben.open(f"read/{reads[0]}")
        ben.ready(reads[0])
    other = enter("ben")
    other.open(f"read/{reads[1]}")
    other.ready(reads[1])
    other.drag([(0.3, 0.3), (0.4, 0.4), (0.5, 0.3)])
    other.saved()
    other.open("worklist")
    ben.drag([(0.3, 0.3), (0.4, 0.4), (0.5, 0.3)])
    ben.key("Enter")
    ben.ready(reads[1])
    until(lambda: ben.page.locator(".panel .marks .pick").count() == 1, "the other window's mark")


def test_leaving_with_unsent_marks_asks(enter):
    cyd = enter("cyd")
    cyd.open_read(2)
    cyd.page.route("**/api/v1/reads/*/ops", lambda route: route.abort())
    cyd.drag(LINE)
    until(lambda: "kept on this computer" in cyd.saying(), "kept")
    asked = []
    cyd.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    cyd.page.close(run_before_unload=True)
    until(lambda: (cyd.page.evaluate("1"), asked)[1] == ["beforeunload"], "asked")
    cyd.page.unroute("**/api/v1/reads/*/ops")
    cyd.saved()
    expected(cyd, "ERR_FAILED")


def test_a_browser_without_storage_says_so_before_the_first_stroke(enter):
    lea = enter("lea")
    lea.page.add_init_script(
        "IDBFactory.prototype.open = () => { throw new DOMException('refused', 'SecurityError'); };"
    )
    read = lea.open_read(0)["read"]
    until(lambda: "keeps nothing" in lea.page.locator(".banner").inner_text(), "that nothing is kept")
    lea.drag(LINE)
    lea.saved()
    assert len(lea.ops(read)) == 1


def test_a_stroke_that_was_being_drawn_is_offered_after_a_crash(enter):
    lea = enter("lea")
    read = lea.open_read(1)["read"]
    mouse = lea.page.mouse
    mouse.move(*lea.at(0.2, 0.2))
    mouse.down()

    def drafted():
        for k in range(20):
            mouse.move(*lea.at(0.2 + 0.02 * k, 0.3))
        return lea.page.evaluate(
            """() => new Promise((resolve) => { const open = indexedDB.open('sightline'); open.onsuccess = () => {
            const all = open.result.transaction('drafts').objectStore('drafts').count();
            all.onsuccess = () => { open.result.close(); resolve(all.result); }; }; })"""
        )

    until(drafted, "a draft on the disk")
    lea.page.close(run_before_unload=False)
    lea.page = lea.page.context.new_page()
    lea.open(f"read/{read}")
    lea.ready(read)
    lea.page.get_by_role("button", name="Take it").click()
    lea.saved()
    assert len(lea.marks(read)) == 1 and len(lea.marks(read)[0]["lines"][0]) > 10


def test_pen_points_keep_time_and_pressure_and_touch_pans_after_a_pen(enter):
    lea = enter("lea")
    read = lea.open_read(2)["read"]
    session = lea.page.context.new_cdp_session(lea.page)
    x, y = lea.at(0.2, 0.2)

    def pen(kind, k, force):
        session.send("Input.dispatchMouseEvent", {
            "type": kind, "x": x + k, "y": y + k / 2, "button": "left", "buttons": 1,
            "pointerType": "pen", "force": force, "clickCount": 1,
        })  # fmt: skip

    pen("mousePressed", 0, 0.3)
    for k in range(1, 41):
        pen("mouseMoved", k, 0.3 + k / 100)
    session.send(
        "Input.dispatchMouseEvent",
        {"type": "mouseReleased", "x": x + 40, "y": y + 20, "button": "left", "pointerType": "pen"},
    )
    lea.saved()
    stroke = lea.marks(read)[0]["strokes"][0]
    assert stroke["pointer"] == "pen" and len(stroke["points"]) == 41
    pressures = [point[3] for point in stroke["points"]]
    assert pressures[1:] == sorted(pressures[1:]) and abs(pressures[40] - 0.7) < 0.01
    before = lea.page.evaluate("getComputedStyle(document.querySelector('.view canvas')).width")
    touch = {"x": x + 60, "y": y + 60}
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
    session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + 120, "y": y + 90}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert len(lea.marks(read)) == 1 and before


def test_what_a_reader_left_behind_is_not_sent_by_another(enter, station, chromium):
    ada = enter("ada")
    read = ada.open_read(0, "label")["read"]
    ada.page.route("**/api/v1/reads/*/ops", lambda route: route.abort())
    ada.drag(LINE)
    until(lambda: len(kept(ada)) == 1, "kept")
    (left,) = kept(ada)
    ada.page.on("dialog", lambda dialog: dialog.accept())
    ada.page.goto(f"{station.address}/static/favicon.svg")
    ada.page.context.clear_cookies()
    ada.page.unroute("**/api/v1/reads/*/ops")
    answer = ada.page.request.post(
        f"{station.address}/api/v1/session", headers={"X-Sightline": "1", "Origin": station.address},
        data={"name": "ben", "password": "four words of nonsense ben"},
    )  # fmt: skip
    assert answer.ok
    ada.open("worklist")
    ada.page.locator(".list tbody tr a").first.wait_for()
    ada.saved()
    until(
        lambda: "another reader" in (ada.page.locator(".head .saving").get_attribute("title") or ""),
        "that another reader left something",
    )
    assert len(kept(ada)) == 1 and ada.saying() == "saved"
    owner = enter("ada")
    assert left not in [op["id"] for op in owner.ops(read)]
    expected(ada, "ERR_FAILED", "status of 401")
