"""Trainings of a table on a Ray cluster: nodes and drivers may die, and the folder is that of one machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.cohorts import make_cohort, tiny_recipe
from support.paths import ROOT

from sightline.errors import RunError
from sightline.evaluation.tables.engines.ray_cluster import RayEngine, import_ray
from sightline.evaluation.tables.engines.run_store import RunStore
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine

# long enough for a kill in the middle, also on a machine with other work
STEPS = 100
# of a table on the cluster: minutes on an idle machine; one with much other work needs a multiple
MOST_S = 1800
# what tells the time, and so differs between two runs of the same command
CLOCKS = ("DONE", "history.csv", "events", "report.html", "training_time.csv")


def table(steps):
    base = tiny_recipe(epochs=steps // 2, select="loss", train_on=("train",))
    rows = (Row("unguided", replace(base, weight=0.0)), Row("guided", base, "unguided"))
    return Table("tiny", "tiny", rows)


def make_table(cohort, out, steps, runs_on=None):
    engine = Engine(device="cpu", quiet=True, state_every_s=0.0)
    made = run_table(table(steps), cohort, out, CATALOGUE, seeds=(0,), engine=engine, runs_on=runs_on)
    write_table(made, out)
    return made


def contents(folder):
    """Bytes of every file but those with a clock."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    names = {p.relative_to(folder): p for p in paths}
    return {str(n): p.read_bytes() for n, p in names.items() if not set(CLOCKS) & {*n.parts}}


def wait_for(what, seconds=900.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.05)


@contextmanager
def end_within(seconds, out):
    """A table that waits for ever (a lost node that Ray does not notice) fails, and says how far it came."""

    def stop(*_):
        found = sorted(str(path.relative_to(out)) for path in out.glob("runs/*/*"))
        raise AssertionError(f"the table in {out} did not end within {seconds} s; there are {found}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_table_that_does_not_end_is_told(tmp_path):
    (tmp_path / "runs" / "0123456789ab" / "state").mkdir(parents=True)
    said = r"within 0.1 s; there are \['runs/0123456789ab/state'\]"
    with pytest.raises(AssertionError, match=said), end_within(0.1, tmp_path):
        time.sleep(30)


def test_a_ray_that_is_not_installed_is_refused_with_a_remedy(monkeypatch, tiny_cohort, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"sightline-radiology\[ray\]"):
        make_table(tiny_cohort, tmp_path / "out", 2, RayEngine())
    assert not (tmp_path / "out").exists()


def test_a_training_without_cores_is_refused():
    with pytest.raises(RunError, match="cores >= 1"):
        RayEngine(cores=0)


@pytest.fixture(scope="module")
def cluster():
    """Three nodes: one that only keeps the books, and two with a core each, of which one is lost."""
    pytest.importorskip("ray")
    import_ray()
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.spare = {"num_cpus": 1, "object_store_memory": memory}
    cluster.workers = [cluster.add_node(**cluster.spare) for _ in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A cohort, and the files of its table as one machine makes them."""
    place = tmp_path_factory.mktemp("local")
    cohort = make_cohort(place / "cohort")
    torch.set_num_threads(1)
    make_table(cohort, place / "local", STEPS)
    return cohort, contents(place / "local")


@pytest.mark.slow
def test_lost_drivers_and_nodes_leave_the_folder_of_one_machine(cluster, local, tmp_path):
    cohort, one = local
    out = tmp_path / "ray"

    def states():
        return set((out / "runs").glob("*/state/state.safetensors"))

    # a driver is killed once its trainings are on their way
    script = tmp_path / "driver.py"
    script.write_text(
        f"import sys\nsys.argv = {sys.argv!r}\nsys.path[:0] = [{str(ROOT / 'tests')!r}]\nimport importlib.util as u\n"
        f"spec = u.spec_from_file_location('driver', {__file__!r})\nm = u.module_from_spec(spec)\n"
        f"spec.loader.exec_module(m)\nm.drive({cluster.address!r}, {str(cohort.root)!r}, {str(out)!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        wait_for(lambda: states() or driver.poll() is not None)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not list(out.glob("runs/*/DONE")), "killed too late to prove anything"

    # another takes over, and a node is lost while both train
    said = []
    both = lambda: len(states()) > 1 or list(out.glob("runs/*/DONE"))  # noqa: E731
    lost = threading.Thread(target=lambda: (wait_for(both), _lose(cluster)))
    lost.start()
    with end_within(MOST_S, out):
        make_table(cohort, out, STEPS, RayEngine(cluster.address, 1, said.append))
    lost.join()
    assert len(cluster.workers) == 1
    print(*said)
    # a resumed training writes a second file of events
    assert any(len(list(f.iterdir())) > 1 for f in out.glob("runs/*/events"))
    assert len(list(out.glob("runs/*/DONE"))) == 2
    other = contents(out)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.slow
def test_nodes_that_share_no_files_go_on_from_a_store(cluster, local, tmp_path):
    cohort, one = local
    out = tmp_path / "ray"
    store = RunStore(f"file://{tmp_path / 'store'}", send_every_s=0.1)
    cluster.workers += [cluster.add_node(**cluster.spare) for _ in range(2 - len(cluster.workers))]

    def sent(kind):
        return {path.parent.name for path in (tmp_path / "store").glob(f"runs/*/{kind}-*.tar")}

    # a node is lost once both trainings have sent a state
    both = lambda: len(sent("state")) > 1 or sent("done")  # noqa: E731
    lost = threading.Thread(target=lambda: (wait_for(both), _lose(cluster)))
    lost.start()
    said = []
    with end_within(MOST_S, out):
        make_table(cohort, out, STEPS, RayEngine(cluster.address, 1, said.append, store))
    lost.join()
    assert len(cluster.workers) == 1
    print(*said)
    assert len(sent("done")) == 2 and not sent("state")
    # each node had the cohort in a folder of its own
    places = {path.parents[2] for path in Path(tempfile.gettempdir()).glob("sightline-*/cohorts/*/cohort.json")}
    assert places
    for place in places:
        shutil.rmtree(place)
    assert any(len(list(f.iterdir())) > 1 for f in out.glob("runs/*/events"))
    other = contents(out)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def _lose(cluster):
    cluster.remove_node(cluster.workers.pop(), allow_graceful=False)


def drive(address, cohort, out):
    """What the driver that is killed runs."""
    from sightline.data.datasets.folder.reader import read_cohort

    make_table(read_cohort(Path(cohort)), Path(out), STEPS, RayEngine(address))
