"""Golden outputs: every command on tiny data, and one digest for each file that it writes.

    python tests/golden/record.py DEST            run everything in DEST and keep it, with DEST/digests.json
    python tests/golden/record.py --check         run everything and list what differs from tests/golden/digests.json
    python tests/golden/record.py --record        the same, then put the new digests in its place
    python tests/golden/record.py --compare A B   list what differs between two digest files

DEST may be added to --check and --record: what was written is then kept there. With --fresh each command is a new
interpreter (twice as slow); without, a process forked from one that has imported torch and its like, never sightline.

Everything runs on the CPU with one thread. Floating point depends on the processor and the libraries: digests of
another machine or other versions are not compared. Where this processor knows more instructions than the one that
recorded, ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell give most of its digests back.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIGESTS = HERE / "digests.json"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "monai",
    "lightning-fabric",
    "segmentation-models-pytorch",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "pandas",
    "pillow",
    "matplotlib",
    "nibabel",
    "pydicom",
)
WARM = (
    "torch",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "torchvision",
    "timm",
    "monai.networks.nets",
    "monai.transforms",
    "lightning_fabric",
    "segmentation_models_pytorch",
    "scipy.stats",
    "scipy.ndimage",
    "skimage.measure",
    "skimage.transform",
    "sklearn.metrics",
    "pandas",
    "matplotlib.pyplot",
    "pydicom",
    "nibabel",
)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# Files that two recordings of one tree do not share, and why. They are not digested at all.
LEFT_OUT = {
    "*/DONE": "ends in the time of day",
    "*/environment.json": "machine and versions; the digests' own made_with says them",
    "*/training_time.csv": "processor time of each training",
    "*/events/*": "TensorBoard: host name, process, time in name and records",
    "*/written.json": "holds the digest of a path; fingerprints of the other files of its cohort",
}
# Parts of files that are cut out before the digest, and why. Everything else of these files is compared.
CUT_OUT = (
    ("*/model_card.md", r"^- sightline .*$", "the processor's name, in one line with sightline's version"),
    ("*/report.html", r'<tr><th scope="row">(machine|date)</th><td>[^<]*</td></tr>', "the processor's name; the day"),
    ("*/units.json", r'"date": "[^"]*"', "the day of a dissection"),
    ("*/spines/*.json", r'"digest": "[^"]*"', "holds size and time of change of the source files"),
    ("*/sources.json", r'"code": "[^"]*"', "the digest of the code itself: what its change does is compared"),
    ("*/sources.json", r'"(platform|processor)": "[^"]*"', "the machine's kernel and processor, by name"),
    ("(standard output)", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "train, committee and cascade say when they ended"),
)
# Columns of tables that are left out, and why.
COLUMNS_LEFT_OUT = (
    ("*/history.csv", "seconds", "how long an epoch took"),
    ("*/history.csv", "cpu_seconds", "processor time of an epoch"),
)


# Words in braces of commands.txt.
WORDS = {"on": "--device cpu --quiet"} | {
    f"{name}_steps": f"--backbone test_resnet --weights none --size 64 --steps {n} --batch-size 4"
    for name, n in (("two", 2), ("four", 4))
}


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: what it is called in the digests.
        words: after `sightline`; or `!ct_series`, a volume and a folder.
        writes: folder, relative to the recording, whose files are digested; none when only its words count.
    """

    name: str
    words: tuple[str, ...]
    writes: str | None = None


def read_steps(path: Path) -> tuple[Step, ...]:
    """The steps of commands.txt: a line `name > folder`, and indented lines with the command."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    blocks: list[tuple[str, list[str]]] = []
    for line in lines:
        if line[0] == " ":
            blocks[-1][1].append(line)
        else:
            blocks.append((line, []))
    steps = []
    for head, command in blocks:
        name, _, folder = (part.strip() for part in head.partition(" > "))
        steps.append(Step(name, tuple(shlex.split(" ".join(command).format(**WORDS))), folder or None))
    return tuple(steps)


STEPS = read_steps(HERE / "commands.txt")


def entry_point() -> tuple[str, str]:
    """Module and function of the console command, as pyproject.toml names them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, function = project["scripts"]["sightline"].split(":")
    return module, function


def made_with() -> dict[str, str]:
    """What floating point depends on besides the code."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"processor": processor, "python": platform.python_version(), **versions}


def run_forked(words: list[str], out: Path) -> int:
    """The command in a process forked from this one: nothing of sightline is imported here."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for number, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(out.with_suffix(f".{end}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["sightline", *words]
        module, function = entry_point()
        try:
            ended = getattr(importlib.import_module(module), function)()
        except SystemExit as stop:
            ended = stop.code
        code = ended if isinstance(ended, int) else int(ended is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_fresh(words: list[str], out: Path) -> int:
    """The command in a new interpreter."""
    module, function = entry_point()
    code = f"import sys; sys.argv[0] = 'sightline'; from {module} import {function}; raise SystemExit({function}())"
    with out.with_suffix(".out").open("w") as stdout, out.with_suffix(".err").open("w") as stderr:
        return subprocess.run(
            [sys.executable, "-c", code, *words], stdout=stdout, stderr=stderr, check=False
        ).returncode


def digest(path: Path, name: str) -> str:
    """The first 16 hexadecimal digits of SHA-256 of what is compared of a file, `name` in the recording."""
    data = path.read_bytes()
    for pattern, expression, _ in CUT_OUT:
        if fnmatch.fnmatch(name, pattern):
            data = re.sub(expression, "", data.decode(), flags=re.MULTILINE).encode()
    for pattern, column, _ in COLUMNS_LEFT_OUT:
        if fnmatch.fnmatch(name, pattern):
            lines = [line.split(",") for line in data.decode().splitlines()]
            where = [n for n, name in enumerate(lines[0]) if name != column]
            data = "\n".join(",".join(cells[n] for n in where) for cells in lines).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def digest_folder(folder: Path, root: Path) -> dict[str, str]:
    """Name, relative to the folder, and digest of every file that two recordings of one tree share."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
            found[path.relative_to(folder).as_posix()] = digest(path, name)
    return found


def record(place: Path, *, fresh: bool = False) -> dict[str, dict[str, str]]:
    """Run every command in `place`; digests by step, and by file of a step."""
    import sources

    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise SystemExit(f"{place} is not empty: give a new folder.")
    os.environ.update(PYTHONPATH=str(ROOT / "src"), COLUMNS="100", NO_COLOR="1", MPLBACKEND="Agg")
    sys.path.insert(0, str(ROOT / "src"))
    os.chdir(place)
    for name, write in sources.SOURCES.items():
        write(Path("sources") / name)
    if not fresh:
        for name in WARM:
            importlib.import_module(name)
    if any(name.split(".")[0] == "sightline" for name in sys.modules):
        raise SystemExit("sightline is imported in the process that forks: its commands would not start from nothing.")
    said, found = Path("said").absolute(), {}
    said.mkdir()
    for number, step in enumerate(STEPS, start=1):
        begun = time.monotonic()
        if step.words[0] == "!ct_series":
            sources.ct_series(*map(Path, step.words[1:]))
            continue
        out = said / re.sub(r"\W+", "_", step.name)
        code = (run_fresh if fresh else run_forked)(list(step.words), out)
        files = digest_folder(Path(step.writes), Path()) if step.writes else {}
        files["(exit code)"] = str(code)
        files["(standard output)"] = digest(out.with_suffix(".out"), "(standard output)")
        found[step.name] = files
        failed = f", exit code {code}: {out.with_suffix('.err').read_text(encoding='utf-8')[-400:]}" if code else ""
        took = f"{time.monotonic() - begun:.1f} s"
        print(f"{number}/{len(STEPS)} {step.name}: {len(files) - 2} files, {took}{failed}", flush=True)
    return found


def differences(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
    """A line a step and file that differs; steps in the order of the new recording."""
    lines = []
    for step in dict.fromkeys([*new, *old]):
        if step not in new or step not in old:
            lines.append(f"{step}: {'no such step any more' if step in old else 'a new step'}")
            continue
        for name in sorted({*old[step], *new[step]}):
            before, after = old[step].get(name), new[step].get(name)
            if before != after:
                what = "missing" if after is None else "new" if before is None else "changed"
                lines.append(f"{step}: {what} {name}" + (f" ({before} -> {after})" if name == "(exit code)" else ""))
    return lines


def read_digests(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", nargs="?", type=Path, help="folder to keep the recording in")
    parser.add_argument("--check", action="store_true", help="compare with tests/golden/digests.json")
    parser.add_argument("--record", action="store_true", help="write tests/golden/digests.json")
    parser.add_argument("--fresh", action="store_true", help="each command in a new interpreter")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two digest files")
    given = parser.parse_args()
    # before anything imports torch or numpy, which read it once: sums of several threads end in other last digits
    os.environ.update(ONE_THREAD)
    if given.compare:
        old, new = (read_digests(path)["steps"] for path in given.compare)
        found = differences(old, new)
        print("\n".join(found) or "no differences")
        return int(bool(found))
    if not (given.dest or given.check or given.record):
        parser.error("give DEST, --check or --record")
    old = read_digests(DIGESTS) if DIGESTS.is_file() else {"made_with": made_with(), "steps": {}}
    if given.check and old["made_with"] != made_with():
        before, now = old["made_with"], made_with()
        unlike = [f"{name}: {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
        print("cannot be compared, recorded with other versions or another processor: " + "; ".join(unlike))
        print("record the commit before your change here first, then compare")
        return 3
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        place = (given.dest or Path(temporary) / "golden").absolute()
        new = {"made_with": made_with(), "steps": record(place, fresh=given.fresh)}
        text = json.dumps(new, indent=0, sort_keys=False) + "\n"
        (place / "digests.json").write_text(text, encoding="utf-8")
        os.chdir("/")
    found = differences(old["steps"], new["steps"])
    if given.check or given.record:
        print(f"\n{len(found)} differences from tests/golden/digests.json" + ":" * bool(found))
        print("\n".join(found))
    if given.record:
        DIGESTS.write_text(text, encoding="utf-8")
    return int(given.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
