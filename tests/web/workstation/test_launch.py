"""The server as a process: ready without torch, killed again and again without losing what it said is saved."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.workstation import box, small_cohort
from support.workstation_page import BROWSER, require_chromium

from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import SightlineError
from sightline.web.workstation import launch
from sightline.web.workstation.launch import Start, choose_keep, list_addresses, open_listening_socket, read_studies

STATIC = Path(launch.__file__).parent / "static"


class Server:
    """A workstation in a process of its own, on a port that stays the same over restarts."""

    def __init__(self, cohort, keep):
        self.cohort, self.keep, self.process = cohort, keep, None
        with open_listening_socket("127.0.0.1", 0) as bound:
            self.port = bound.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "sightline.web.workstation", str(self.cohort), "--keep", str(self.keep)]
        command += ["--port", str(self.port), "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def ask(self, method, path, body=None, cookie=""):
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Sightline": "1", "Origin": self.base, "Content-Type": "application/json", "Cookie": cookie}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = answer.read()
            return json.loads(said) if said else None, answer.headers.get("Set-Cookie", "")


@pytest.fixture
def server(tmp_path):
    write_cohort(small_cohort(tmp_path / "drawn"), tmp_path / "cohort")
    made = Server(tmp_path / "cohort", tmp_path / "keep")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def until_up(server, limit=120.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            return server.ask("GET", "/readyz")
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


def test_it_starts_without_torch_and_prints_an_address_that_works(server):
    address = server.start()
    assert address.startswith(server.base + "/?token=")
    until_up(server)
    _, cookie = server.ask("POST", "/api/v1/session", {"token": address.split("=", 1)[1]})
    rows, _ = server.ask("GET", "/api/v1/worklist", cookie=cookie.split(";")[0])
    assert len(rows["rows"]) == 4
    maps = Path(f"/proc/{server.process.pid}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()


@pytest.mark.slow
def test_importing_the_server_imports_no_torch():
    code = (
        "import sys, sightline.web.workstation.launch, sightline.web.workstation.api.app;"
        "print([m for m in ('torch', 'monai', 'timm', 'matplotlib', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def kills(server, rounds, seed):
    """Kill at random moments while operations are sent; what was acknowledged, and what is stored in the end."""
    dice = random.Random(seed)
    address = server.start()
    until_up(server)
    _, cookie = server.ask("POST", "/api/v1/session", {"token": address.split("=", 1)[1]})
    cookie = cookie.split(";")[0]
    row = server.ask("GET", "/api/v1/worklist", cookie=cookie)[0]["rows"][0]["read"]
    image = server.ask("GET", f"/api/v1/reads/{row}", cookie=cookie)[0]["study"]["images"][0]["key"]
    acknowledged, outbox, over = [], [], threading.Event()

    def send():
        client, n = str(uuid.uuid4()), 0
        while not over.is_set() or outbox:
            if not over.is_set() and len(outbox) < 5:
                n += 1
                at = {"at_ms": time.time() * 1000, "mono_ms": float(n), "image": image, "client": client, "n": n}
                outbox.append({"id": str(uuid.uuid4()), "kind": "add", "body": {"mark": box()}, **at})
            try:
                body = {"ops": outbox[:3], "sent_mono_ms": float(n), "sent_at_ms": time.time() * 1000}
                saved = server.ask("POST", f"/api/v1/reads/{row}/ops", body, cookie)[0]["saved"]
                acknowledged.extend(saved)
                outbox[:] = [op for op in outbox if op["id"] not in saved]
            except OSError:
                time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(rounds):
            time.sleep(dice.uniform(0.0, 0.4))
            server.kill()
            server.start()
            until_up(server)
    finally:
        over.set()
        sender.join(120)
    server.kill()
    raw = sqlite3.connect(server.keep / "workstation.db")
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stored = [one for (one,) in raw.execute("SELECT id FROM op")]
    raw.close()
    assert outbox == []
    return acknowledged, stored


def check(acknowledged, stored):
    assert len(acknowledged) == len(set(acknowledged))
    assert sorted(stored) == sorted(acknowledged)  # none lost, none doubled, none that nobody sent


@pytest.mark.skipif(os.name != "posix", reason="kills are those of POSIX")
def test_a_kill_loses_nothing(server):
    acknowledged, stored = kills(server, 1, seed=0)
    check(acknowledged, stored)
    assert len(stored) > 2


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills are those of POSIX")
def test_fifty_kills_lose_nothing(server):
    acknowledged, stored = kills(server, 50, seed=1)
    check(acknowledged, stored)
    assert len(stored) > 200


def test_addresses_that_others_can_reach_need_tls(tmp_path):
    for start in (Start(tmp_path, host="0.0.0.0"), Start(tmp_path, host="192.168.1.5")):
        with pytest.raises(SightlineError, match="passwords would travel bare"):
            list_addresses(start, 8765)
    hosts, origins, secure = list_addresses(Start(tmp_path), 8765)
    assert hosts == ("127.0.0.1:8765", "localhost:8765")
    assert origins == ("http://127.0.0.1:8765", "http://localhost:8765")
    assert not secure
    hosts, origins, secure = list_addresses(Start(tmp_path, behind_proxy="https://marks.example"), 8765)
    assert origins == ("https://marks.example",)
    assert secure
    with pytest.raises(SightlineError, match="together"):
        list_addresses(Start(tmp_path, tls_cert=tmp_path / "a"), 8765)


def test_a_taken_port_says_what_next():
    with open_listening_socket("127.0.0.1", 0) as bound, pytest.raises(SightlineError) as refused:
        open_listening_socket("127.0.0.1", bound.getsockname()[1])
    assert "--port 0" in refused.value.remedy


def test_marks_lie_beside_the_cohort_and_an_empty_folder_is_refused(tmp_path):
    assert choose_keep(tmp_path / "c", None) == tmp_path / "c.workstation"
    with pytest.raises(SightlineError, match="neither a cohort"):
        read_studies(tmp_path)
    with pytest.raises(SightlineError, match="does not exist"):
        read_studies(tmp_path / "nothing")


WORKLIST = """
import os, pathlib, subprocess, sys, time
from playwright.sync_api import sync_playwright
site, chromium, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
    page = browser.new_page()
    begun = time.monotonic()
    command = [sys.executable, "-c", "from sightline.cli import main; raise SystemExit(main())", "workstation"]
    found = {"PYTHONPATH": site, "PATH": "/nowhere", "HOME": "/nowhere", "OMP_NUM_THREADS": "1"}
    command += [*arguments, "--port", "0", "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=found)
    try:
        page.goto(server.stdout.readline().strip())
        page.locator(".list tbody tr a").first.wait_for(timeout=120_000)
        took = time.monotonic() - begun
        loaded = "libtorch" in pathlib.Path(f"/proc/{server.pid}/maps").read_text()
        ticks = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        busy = sum(int(n) for n in ticks) / os.sysconf("SC_CLK_TCK")
        print(took, busy, page.locator(".list tbody tr a").count(), loaded, flush=True)
    finally:
        server.kill()
        server.wait()
        browser.close()
"""


@pytest.mark.slow
def test_from_a_wheel_without_network_node_and_torch_the_worklist_is_there_in_ten_seconds(tmp_path):
    """In a network of its own with nothing but its loopback; the demo cohort is drawn by the first start."""
    require_chromium()
    if os.geteuid() or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("a network namespace needs root")
    top = Path(__file__).parents[3]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=top, check=True, capture_output=True)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    script = f'ip link set lo up && exec {sys.executable} -c "$SCRIPT" {site} {BROWSER}'
    took, worked = {}, {}
    for name in ("first start, which draws the demo cohort", "again"):
        done = subprocess.run(
            ["unshare", "-n", "sh", "-c", script], cwd=tmp_path, env={**os.environ, "SCRIPT": WORKLIST}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        seconds, busy, studies, torch = done.stdout.split()
        took[name], worked[name] = float(seconds), float(busy)
        assert (int(studies), torch) == (12, "False")
    print("seconds", took, "of them the server's own on a processor", worked)
    assert max(worked.values()) <= 10  # whatever else the machine does
    if took["again"] > 10 and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip(f"it starts; other work keeps this machine too busy for times ({took})")
    assert took["again"] <= 10


def test_an_answer_does_not_wait_for_more_to_send():
    async def delays() -> int:
        accepted = asyncio.get_running_loop().create_future()
        with open_listening_socket("127.0.0.1", 0) as bound:
            server = await asyncio.start_server(lambda reader, writer: accepted.set_result(writer), sock=bound)
            async with server:
                _, caller = await asyncio.open_connection(*bound.getsockname())
                writer = await accepted
                waits = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
                caller.close()
        return waits

    # a browser's driver may have left a loop in this thread
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, delays()).result() != 0


def test_the_page_asks_for_all_its_modules_at_once():
    def reached(*starts):
        found, open_ = [], list(starts)
        while open_:
            module = open_.pop()
            if module not in found:
                found.append(module)
                text = (STATIC / module).read_text(encoding="utf-8")
                names = re.findall(r'^(?:import|export)\b[^;]*?from "(\.[^"]+)"', text, re.MULTILINE)
                open_ += [os.path.normpath(Path(module).parent / name) for name in names]
        return sorted(found)

    page = (STATIC / "index.html").read_text(encoding="utf-8")
    asked = re.findall(r'(?:rel="modulepreload" href|type="module" src)="/static/([^"]+)"', page)
    assert sorted(asked) == reached("app.js", "screens/marking.js", "screens/worklist.js")
