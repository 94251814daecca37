"""What is told of a training while it runs: to MLflow, whose server may be lost on the way."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from sightline.errors import RunError
from sightline.training.checkpoint import MlflowLog


class Failure(Exception):
    """As MLflow's own."""


class Client:
    """A tracking server that is there for so many numbers."""

    def __init__(self, address):
        self.told, self.left, self.ended = [], 2, False

    def get_experiment_by_name(self, name):
        if self.left < 0:
            raise Failure("no\nserver")
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, places, words, max_results):
        return [SimpleNamespace(info=SimpleNamespace(run_id="7"))]

    def log_metric(self, run, name, value, step):
        self.left -= 1
        if self.left < 0:
            raise Failure("connection\nrefused")
        self.told.append((run, name, value, step))

    def set_terminated(self, run):
        self.ended = True


@pytest.fixture
def mlflow(monkeypatch):
    """A package of that name, of which no server is needed."""
    for name, words in (("exceptions", {"MlflowException": Failure}), ("tracking", {"MlflowClient": Client})):
        module = ModuleType(f"mlflow.{name}")
        vars(module).update(words)
        monkeypatch.setitem(sys.modules, f"mlflow.{name}", module)
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))


def test_a_server_that_is_lost_costs_the_log_and_not_the_training(mlflow, capsys):
    log = MlflowLog("http://there", "0123456789ab", "guided", {})
    client = log._client
    for step in (1, 2):
        log.write({"epoch": 1, "step": step, "loss": 0.5, "val_auc": 0.7, "val_loss": 0.6, "note": "x"}, step)
    log.close()
    assert client.told == [("7", "loss", 0.5, 1), ("7", "val_auc", 0.7, 1)] and not client.ended
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "guided: MLflow at http://there was lost (connection refused)" in said


def test_a_server_that_is_not_there_is_refused(mlflow, monkeypatch):
    monkeypatch.setattr(Client, "__init__", lambda self, address: setattr(self, "left", -1))
    with pytest.raises(RunError, match=r"MLflow at http://there cannot be used \(no server\)"):
        MlflowLog("http://there", "0123456789ab", "guided", {})
