"""Golden outputs: every command on tiny data, and one digest for each file that it writes.

    python tests/golden/record.py DEST            run everything in DEST and keep it, with DEST/digests.json
    python tests/golden/record.py --check         run everything and list what differs from tests/golden/digests.json
    python tests/golden/record.py --record        the same, then put the new digests in its place
    python tests/golden/record.py --compare A B   list what differs between two digest files

DEST may be added to --check and --record: what was written is then kept there. With --fresh each command is a new
interpreter (twice as slow); without, a process forked from one that has imported torch and its like, never sightline.

Everything runs on the CPU with one thread. Floating point depends on the processor and the libraries: digests of
another machine or other versions are not compared.
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
PACKAGES = ("torch", "torchvision", "timm", "monai", "lightning-fabric", "segmentation-models-pytorch", "safetensors",
            "numpy", "scipy", "scikit-image", "scikit-learn", "pandas", "pillow", "matplotlib", "nibabel", "pydicom")  # fmt: skip
WARM = ("torch", "torch._dynamo", "torch.utils.tensorboard", "torchvision", "timm", "monai.networks.nets",
        "monai.transforms", "lightning_fabric", "segmentation_models_pytorch", "scipy.stats", "scipy.ndimage",
        "skimage.measure", "skimage.transform", "sklearn.metrics", "pandas", "matplotlib.pyplot", "pydicom", "nibabel")  # fmt: skip
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

# Files that two recordings of one tree do not share, and why. They are not digested at all.
LEFT_OUT = {
    "*/DONE": "ends in the time of day",
    "*/environment.json": "machine and versions; the digests' own made_with says them",
    "*/events/*": "TensorBoard: host name, process, time in name and records",
    "*/SHA256SUMS": "holds digests of files of this list; the others are digested here",
}
# Parts of files that are cut out before the digest, and why. Everything else of these files is compared.
CUT_OUT = (
    ("*/model_card.md", r"^- sightline .*(\n- .*)*", "versions and machine under `Made with`"),
    ("*/dissection.json", r'"date": "[^"]*"', "the day"),
)
# Columns of tables that are left out, and why.
COLUMNS_LEFT_OUT = (("*/history.csv", "seconds", "how long an epoch took"),)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: what it is called in the digests.
        words: after `sightline`, separated by spaces (`+` stands for a space within a word).
        writes: folder, relative to the recording, whose files are digested; none when only its words count.
    """

    name: str
    words: str
    writes: str | None = None


TINY = "--backbone test_resnet --weights none --size 64 --steps 4 --batch-size 4"
ON = "--device cpu --quiet"
CT = "spine_source/dataset-phantomtest/{}/sub-phantom002/sub-phantom002_{}"


def phantoms() -> list[Step]:
    radiographs = "cohort phantom radiographs"
    return [
        Step("phantom wrist", f"{radiographs} wrist --studies 12 --seed 9", "wrist"),
        Step("phantom wrist dicom", f"{radiographs} wrist_dicom --studies 3 --as dicom --shortcut 0.9 --seed 4", "wrist_dicom"),
        Step("phantom femur", f"{radiographs} femur --anatomy femur --studies 24 --seed 5", "femur"),
        Step("phantom femur wide", f"{radiographs} femur_wide --anatomy femur --field wide --ao-shares published --studies 3 --seed 6",
             "femur_wide"),
        Step("phantom chest", "cohort phantom chest chest_source --images 24 --size 128 105 --seed 7", "chest_source"),
        Step("phantom spine", "cohort phantom spine spine_source --subjects 3 --spacing 3 --prevalence 0.3 --seed 8", "spine_source"),
    ]  # fmt: skip


def imports() -> list[Step]:
    options = {
        "dicom": "--labels sources/dicom_labels.csv",
        "cub200": "--per-class 3 --seed 2",
        "grazpedwri": "--fractions 0.5 0.25 0.25",
    }
    names = ("coco", "cub200", "fracatlas", "grazpedwri", "chest_lungs", "dicom", "reflacx", "tracker")
    steps = [
        Step(f"import {name}", f"cohort import {name} sources/{name} imported/{name} {options.get(name, '')}", f"imported/{name}")
        for name in names
    ]
    more = (
        ("folder", "folder wrist imported/folder", "imported/folder"),
        ("dicom without labels", "dicom wrist_dicom imported/dicom_bare", "imported/dicom_bare"),
        ("grazpedwri codes", "grazpedwri sources/grazpedwri imported/codes --label-from ao_classification", "imported/codes"),
        ("tracker fixations", "tracker sources/tracker imported/fixations --gaze fixations", "imported/fixations"),
        ("reflacx samples", "reflacx sources/reflacx imported/samples --gaze samples --certainty 4 --findings Pneumothorax Atelectasis",
         "imported/samples"),
        ("egd_cxr", "egd_cxr chest_source chest", "chest"),
        ("egd_cxr fixations", "egd_cxr chest_source imported/egd_fixations --gaze fixations --heart cardiac_silhouette --correct-drift "
         "--screen-width-mm 600 --distance-mm 700", "imported/egd_fixations"),
        ("verse", "verse spine_source spine", "spine"),
        ("verse straightened", "verse spine_source imported/straightened --mode straightened --positive-if 2 --anti-alias",
         "imported/straightened"),
    )  # fmt: skip
    steps += [Step(f"import {name}", f"cohort import {words}", folder) for name, words, folder in more]
    return steps + [Step(f"check {name}", f"cohort check {name}") for name in ("wrist", "femur", "chest", "spine", "imported/reflacx")]


def trainings() -> list[Step]:
    recipes = (
        ("guided", "guided", "wrist", TINY),
        ("unguided", "unguided", "wrist", TINY + " --seed 1"),
        ("small guided, two epochs", "small-guided", "wrist", "--weights none --size 64 --epochs 2 --batch-size 8 --select loss"),
        ("fracture guided", "fracture-guided", "wrist", "--backbone test_resnet --weights none --size 64 --steps 4 --batch-size 4"),
        ("self transfer", "self-transfer", "femur", TINY),
        ("a-stn", "a-stn", "femur", TINY),
        ("trying-stn", "trying-stn", "femur", TINY),
        ("box regression", "box-regression", "femur", TINY),
        ("ubm", "ubm", "femur", TINY),
        ("gg-cam", "gg-cam", "chest", TINY),
        ("gaze set 3", "gaze-set3", "chest", TINY.replace("test_resnet", "resnet18")),
        ("spine small", "spine-small", "spine", "--weights none --steps 3 --batch-size 2"),
        ("spine guided", "spine-guided", "spine", "--weights none --size 32 --steps 3 --batch-size 2"),
    )  # fmt: skip
    steps = []
    for name, recipe, cohort, options in recipes:
        run = "runs/" + name.replace(" ", "-").replace(",", "")
        steps.append(Step(f"train {name}", f"train {recipe} --cohort {cohort} --out {run} {options} {ON}", run))
    together = f"committee runs/guided runs/small-guided-two-epochs --cohort wrist --out runs/committee --mirrored {ON}"
    moved = "cascade runs/box-regression runs/ubm --cohort femur --out runs/cascade"
    return [*steps, Step("committee", together, "runs/committee"), Step("cascade", moved, "runs/cascade")]


def outputs() -> list[Step]:
    evaluations = (
        ("guided", "wrist", "test"), ("committee", "wrist", "val"), ("self-transfer", "femur", "all"), ("cascade", "femur", "test"),
        ("trying-stn", "femur", "test"), ("gg-cam", "chest", "test"), ("gaze-set-3", "chest", "val"), ("spine-guided", "spine", "test"),
    )  # fmt: skip
    steps = [
        Step(f"evaluate {run}", f"evaluate runs/{run} --cohort {cohort} --split {split} --out evaluated/{run} --panels 3 --replicates 100 {ON}",
             f"evaluated/{run}")
        for run, cohort, split in evaluations
    ]  # fmt: skip
    predict, explain, dissect = f"predict {ON} runs/", f"explain {ON} runs/", f"dissect {ON} runs/"
    every = "cam grad_cam grad_cam_pp gradient guided deconvolution guided_grad_cam smooth_grad"
    more = (
        ("predict png", f"{predict}guided wrist/images wrist/studies.csv", "predicted/png"),
        ("predict dicom", f"{predict}small-guided-two-epochs wrist_dicom/images", "predicted/dicom"),
        ("predict through a transformer", f"{predict}trying-stn femur_wide/images", "predicted/femur"),
        ("explain guided", f"{explain}guided wrist --most 2 --explainers {every}", "explained/guided"),
        ("explain gaze", f"{explain}gg-cam chest --most 2 --explainers cam grad_cam gradient", "explained/gaze"),
        ("explain a file", f"{explain}unguided wrist_dicom/images --explainers cam smooth_grad", "explained/file"),
        ("dissect radiographs", f"{dissect}guided --cohort wrist --split all --units 3 --by auc", "dissected/wrist"),
        ("dissect spine", f"{dissect}spine-guided --cohort spine --split all --units 3 --by contrast", "dissected/spine"),
        ("predict ct", f"{predict}spine-guided {CT.format('rawdata', 'ct.nii.gz')} --centroids "
         f"{CT.format('derivatives', 'seg-subreg_ctd.json')} --dissection dissected/spine", "predicted/ct"),
        ("predict ct dicom", f"{predict}spine-small ct_dicom --vertebrae {CT.format('derivatives', 'seg-vert_msk.nii.gz')} --panels none",
         "predicted/ct_dicom"),
    )  # fmt: skip
    steps += [Step(name, f"{words} --out {folder}", folder) for name, words, folder in more]
    rows = "--rows s-512+baseline s-512+guided+0.1+segm --seeds 2"
    table = f"table liao2022/table3 --cohort wrist --out table {rows} {TINY.replace('--steps 4', '--steps 2')} {ON}"
    return [*steps, Step("table", table, "table"), Step("recipes", "recipes")]


STEPS = (*phantoms(), *imports(), *trainings(), *outputs())


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
        return subprocess.run([sys.executable, "-c", code, *words], stdout=stdout, stderr=stderr, check=False).returncode


def digest(path: Path, name: str) -> str:
    """The first 16 hexadecimal digits of SHA-256 of what is compared of a file."""
    data = path.read_bytes()
    for pattern, expression, _ in CUT_OUT:
        if fnmatch.fnmatch(name, pattern):
            data = re.sub(expression, "", data.decode(), flags=re.MULTILINE).encode()
    for pattern, column, _ in COLUMNS_LEFT_OUT:
        if fnmatch.fnmatch(name, pattern):
            lines = [line.split(",") for line in data.decode().splitlines()]
            where = lines[0].index(column)
            data = "\n".join(",".join(cells[:where] + cells[where + 1 :]) for cells in lines).encode()
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
    os.environ.update(ONE_THREAD, PYTHONPATH=str(ROOT / "src"), COLUMNS="100", NO_COLOR="1", MPLBACKEND="Agg")
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
        if step.name == "predict ct dicom":
            sources.ct_series(Path(CT.format("rawdata", "ct.nii.gz")), Path("ct_dicom"))
        out = said / re.sub(r"\W+", "_", step.name)
        code = (run_fresh if fresh else run_forked)([w.replace("+", " ") for w in step.words.split()], out)
        files = digest_folder(Path(step.writes), Path()) if step.writes else {}
        words = out.with_suffix(".out").read_text(encoding="utf-8")
        files["(exit code)"] = str(code)
        files["(standard output)"] = hashlib.sha256(words.encode()).hexdigest()[:16]
        found[step.name] = files
        failed = "" if code == 0 else f", exit code {code}: {out.with_suffix('.err').read_text(encoding='utf-8')[-400:]}"
        print(f"{number}/{len(STEPS)} {step.name}: {len(files) - 2} files, {time.monotonic() - begun:.1f} s{failed}", flush=True)
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
    if given.compare:
        old, new = (read_digests(path)["steps"] for path in given.compare)
        found = differences(old, new)
        print("\n".join(found) or "no differences")
        return int(bool(found))
    if not (given.dest or given.check or given.record):
        parser.error("give DEST, --check or --record")
    old = read_digests(DIGESTS) if DIGESTS.is_file() else {"made_with": made_with(), "steps": {}}
    if given.check and old["made_with"] != made_with():
        unlike = [f"{k}: {old['made_with'].get(k)} -> {v}" for k, v in made_with().items() if old["made_with"].get(k) != v]
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
