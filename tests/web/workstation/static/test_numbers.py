"""Times a reader waits, at three times their limits: shared machines are slow (`python -m benchmarks workstation`)."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from benchmarks.workstation import LIMITS, Settings, figures
from tests.support.workstation_page import noise_cohort, running, sign_in

SMALL = Settings(rows=300, columns=240, studies=5, moves=10, points=120, strokes=3)
LARGE = Settings(moves=60, strokes=10)


@pytest.fixture
def reader(chromium, tmp_path):
    """Somebody before pictures of noise, and where they lie."""

    @contextlib.contextmanager
    def come(chosen):
        cohort = noise_cohort(tmp_path / "cohort", (chosen.rows, chosen.columns), chosen.studies)
        with running(tmp_path, {"ada": "reader"}, {"mark": {"readers": ["ada"]}}, cohort) as station:
            ada = sign_in(chromium, station, "ada")
            yield station, ada
            assert ada.faults == []
            ada.page.context.close()

    return come


@pytest.mark.slow
def test_no_point_is_lost_and_every_wait_is_measured(reader):
    with reader(SMALL) as (station, ada):
        found = figures(station, ada, SMALL)  # Unequal where a point is lost
    assert found.keys() == LIMITS.keys() and all(value > 0 for value in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [SMALL, LARGE], ids=["small", "large"])
def test_every_wait_is_within_three_times_its_limit(reader, chosen):
    with reader(chosen) as (station, ada):
        least: dict[str, float] = {}
        # the machine has others to serve: of a few tries the best one counts
        for _ in range(3):
            for name, value in figures(station, ada, chosen).items():
                least[name] = min(value, least.get(name, value))
            if all(least[name] <= 3 * limit for name, limit in LIMITS.items()):
                break
    late = {name: value for name, value in least.items() if value > 3 * LIMITS[name]}
    if late and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip(f"no point was lost; other work keeps this machine too busy for times ({late})")
    assert late == {}


STATIC = Path(__file__).parents[4] / "src" / "sightline" / "web" / "workstation" / "static"


def loaded_by(*names: str) -> int:
    """Bytes of scripts that come with these, by the imports that are not made later."""
    seen: dict[Path, int] = {}
    left = [STATIC / name for name in names]
    while left:
        path = left.pop().resolve()
        if path not in seen:
            text = path.read_text(encoding="utf-8")
            seen[path] = path.stat().st_size
            left += [path.parent / found for found in re.findall(r'^import [^;]*?from "([^"]+)"', text, re.MULTILINE)]
    return sum(seen.values())


def test_no_screen_loads_more_script_than_the_limit():
    screens = [path.name for path in (STATIC / "screens").glob("*.js")]
    assert {name: n for name in screens if (n := loaded_by("app.js", f"screens/{name}")) > 200_000} == {}
    assert loaded_by("app.js", "screens/worklist.js") <= 75_000
    assert sum(path.stat().st_size for path in STATIC.rglob("*.js")) <= 310_000
