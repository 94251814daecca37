"""The same store on PostgreSQL, as a department runs it: Debian's server in a folder of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.workstation import Page, box, open_studio, small_cohort

from sightline.web.workstation.exchange.cohort_export import export_folder
from sightline.web.workstation.store.audit import verify

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def address():
    """A server on a socket and a free port; it refuses to run as root, so root hands it to another account."""
    if BINARIES is None:
        pytest.skip("no PostgreSQL of Debian")
    place = Path(tempfile.mkdtemp(prefix="pg"))
    run = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("no account for PostgreSQL")
        shutil.chown(place, "postgres")
        run = ["runuser", "-u", "postgres", "--"]
        if subprocess.run([*run, "test", "-w", str(place)], cwd="/").returncode:
            pytest.skip("the folder of temporary files is closed to PostgreSQL's account")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(place / "data")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=on"
    init = [*run, str(BINARIES / "initdb"), "-D", data, "-A", "trust", "-U", "marks", "--no-sync"]
    start = [
        *run,
        str(BINARIES / "pg_ctl"),
        "-D",
        data,
        "-w",
        "-t",
        "120",
        "-o",
        options,
        "-l",
        str(place / "log"),
        "start",
    ]
    subprocess.run(init, check=True, capture_output=True, cwd="/")
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    yield f"postgresql://marks@127.0.0.1:{port}/postgres"
    stop = [*run, str(BINARIES / "pg_ctl"), "-D", data, "-m", "immediate", "stop"]
    subprocess.run(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    shutil.rmtree(place, ignore_errors=True)


def test_marks_chains_guards_and_export_are_those_of_sqlite(address, tmp_path):
    studio = open_studio(tmp_path, small_cohort(tmp_path / "cohort"), database=address)
    for name, role in (("ada", "reader"), ("ben", "reader"), ("lea", "lead")):
        studio.add(name, role)
    studio.plan("first", ["ada", "ben"], passes=2, order="random")
    row = studio.reads("ada")[0]
    client = studio.client("ada")
    images = client.get(f"/api/v1/reads/{row['read']}").json()["study"]["images"]
    failures = []

    def work():
        page = Page()
        for _ in range(4):
            op = page.op("add", images[0]["key"], {"mark": box()})
            answers = [page.send(client, row["read"], [op]).status_code for _ in range(2)]
            failures.extend(code for code in answers if code != 200)

    threads = [threading.Thread(target=work) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failures == []
    got = client.get(f"/api/v1/reads/{row['read']}").json()
    assert len(got["ops"]) == 24
    assert len(got["state_of_marks"]["marks"]) == 24
    assert studio.finish("ben", studio.reads("ben")[0]["read"], [box()]).status_code == 200
    with studio.desk.database.reading() as connection:
        rows, broken = verify(connection)
        assert broken is None
        assert rows > 25
    for statement in ("DELETE FROM op", "UPDATE audit SET who = 'x'", "TRUNCATE op"):
        with pytest.raises(DBAPIError, match="added to only"), studio.desk.database.writing() as connection:
            connection.execute(text(statement))
    done = export_folder(studio.desk, tmp_path / "out")
    assert done.marks == 1
    lead = studio.client("lea").get("/api/v1/progress", params={"task": studio.tasks["first"]}).json()["rows"]
    assert {r["reader"]: r["submitted"] for r in lead} == {"ada": 0, "ben": 1}
    studio.desk.close()
    # opened again: the same store
    again = open_studio(tmp_path, small_cohort(tmp_path / "cohort"), database=address)
    with again.desk.database.reading() as connection:
        assert verify(connection)[0] >= rows
    again.desk.close()
