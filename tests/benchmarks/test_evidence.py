"""The promises of docs/evidence.md, simulated small from the one command that fills the page, and what breaks one."""

import numpy as np
import pytest

from benchmarks import evidence
from benchmarks.__main__ import ROOT, Bench


@pytest.mark.slow
def test_the_command_keeps_every_promise_and_leaves_the_page_alone(capsys):
    page = ROOT / "docs" / "statistics.md"
    before = page.read_text(encoding="utf-8")
    assert Bench(names=("evidence",), small=True).run() == 0
    text = capsys.readouterr().out
    assert all(f"**{title}**" in text for title in evidence.PARTS) and "**no**" not in text
    assert page.read_text(encoding="utf-8") == before
    # the page names every promise that the command simulates
    assert all(line.split("|")[1] in before for line in text.splitlines() if line.startswith("| "))


def test_a_broken_promise_is_seen(monkeypatch):
    kept = evidence.miss_rates(np.random.default_rng(0), 60)
    assert all(promise.kept for promise in kept)
    # thresholds that promise nothing miss a third of them
    point = evidence.choose_miss_rate_point
    monkeypatch.setattr(evidence, "choose_miss_rate_point", lambda table, rate, **more: point(table, 0.35, **more))
    broken = evidence.miss_rates(np.random.default_rng(0), 60)
    assert not broken[0].kept
