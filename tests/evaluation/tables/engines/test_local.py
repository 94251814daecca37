"""Several trainings at a time give the same files as one after the other."""

import pickle
from concurrent.futures import Future
from contextlib import nullcontext

import pytest
from support.cohorts import tiny_recipe

from sightline.evaluation.tables.engines import local
from sightline.evaluation.tables.engines.local import LocalEngine
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine


class Pool:
    """Jobs that go to and fro as bytes, as between processes, and are done when they are handed in."""

    def submit(self, function, *arguments):
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        done = Future()
        try:
            done.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parallel_and_serial_tables_are_the_same(tiny_cohort, tmp_path, monkeypatch, processes):
    handed = []
    if not processes:
        # two processes import torch for longer than all rows train
        monkeypatch.setattr(local, "open_process_pool", lambda *words: handed.append(words) or nullcontext(Pool()))
    table = Table(
        "tiny",
        "tiny",
        (
            Row("unguided", tiny_recipe(weight=0.0, steps=2)),
            Row("guided", tiny_recipe(steps=2), "unguided"),
            Row("diverges", tiny_recipe(steps=9, schedule=type(tiny_recipe().schedule)(1e9, 1e9)), "unguided"),
        ),
    )
    quiet = Engine(device="cpu", quiet=True)
    both = [
        run_table(table, tiny_cohort, tmp_path / str(n), CATALOGUE, seeds=(0,), engine=quiet, runs_on=LocalEngine(n))
        for n in (1, 2)
    ]
    assert processes or [(workers, start) for workers, start, *_ in handed] == [(2, "spawn")]
    for serial, parallel in zip(both[0].rows, both[1].rows, strict=True):
        assert (serial.why_not is None) == (parallel.why_not is None) == (serial.row.name != "diverges")
        assert [f.name for f in serial.folders] == [f.name for f in parallel.folders]
        if serial.why_not is None:
            a, b = serial.evaluations["test"][0].predictions, parallel.evaluations["test"][0].predictions
            assert a.case_ids == b.case_ids
            # other numbers of threads may differ in the last bits
            assert abs(a.probabilities - b.probabilities).max() < 1e-3
