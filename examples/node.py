"""`make node`: a node with a small run of its own, a PACS beside it, and a phantom study that goes through both.

Everything lies in one folder (`node-demo`), on loopback. The PACS is Orthanc where it is installed, else a few lines of
pynetdicom that keep what they get. With `--stay` node and PACS go on until Ctrl-C, for trying things by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import tyro
import yaml
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt

Held = Callable[[], list[str]]
# for a node to open its run, and for results to come, on a machine that is busy with other work
PATIENCE_S = 600
SIGHTLINE = (sys.executable, "-c", "from sightline.cli import main; main()")


def command(*words: object) -> None:
    """Run and show a `sightline` command."""
    print("$ sightline " + " ".join(map(str, words)), flush=True)
    subprocess.run([*SIGHTLINE, *map(str, words)], check=True)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(out: Path) -> tuple[Path, list[Path]]:
    """A run with its gate, and the files of one phantom study that it has not seen."""
    cohort, run, study = out / "cohort", out / "run", out / "study"
    if not (cohort / "cohort.json").exists():
        command("cohort", "phantom", "radiographs", cohort, "--studies", 60, "--seed", 1)
    command("train", "small-guided", "--cohort", cohort, "--out", run, "--steps", 60)
    words = ("--modality", "DX", "CR", "--body-part", "WRIST")
    command("gate", run, "--cohort", cohort, *words)
    if not study.exists():
        command("cohort", "phantom", "radiographs", study, "--studies", 30, "--seed", 2, "--as", "dicom")
    by_study: dict[str, list[Path]] = {}
    for file in sorted(study.rglob("*.dcm")):
        by_study.setdefault(str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID), []).append(file)
    return run, next(iter(by_study.values()))


@contextmanager
def orthanc(out: Path, port: int, node_port: int) -> Iterator[Held]:
    """Orthanc in a folder of its own; what it holds as text."""
    folder, http = out / "orthanc", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": http, "DicomPort": port,
        "DicomAet": "PACS", "DicomCheckCalledAet": True, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomModalities": {"SIGHTLINE": ["SIGHTLINE", "127.0.0.1", node_port]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http}"

    def ask(path: str) -> Any:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return json.loads(answer.read())

    def held() -> list[str]:
        tags = [ask(f"/instances/{one}/simplified-tags") for one in ask("/instances")]
        return [f"{one.get('Modality')}: {one.get('SeriesDescription', '')}" for one in tags]

    try:
        for _ in range(200):
            try:
                ask("/system")
                break
            except OSError:
                time.sleep(0.1)
        print(f"Orthanc at {url} (DICOM port {port})")
        yield held
    finally:
        process.terminate()
        process.wait()


@contextmanager
def keeper(port: int) -> Iterator[Held]:
    """A PACS of a few lines: it keeps what it gets, and promises nothing."""
    kept = {}

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        kept[str(dataset.SOPInstanceUID)] = f"{dataset.get('Modality')}: {dataset.get('SeriesDescription', '')}"
        return 0x0000

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), ExplicitVRLittleEndian)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    print(f"Orthanc is not installed (apt-get install orthanc): a keeper of pynetdicom at port {port} instead")
    try:
        yield lambda: list(kept.values())
    finally:
        server.shutdown()


def wait_until_ready(url: str, node: subprocess.Popen[bytes]) -> bool:
    """Wait until the node says that it can judge; False where it ended or takes too long."""
    begun = time.monotonic()
    while node.poll() is None and time.monotonic() - begun < PATIENCE_S:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def send(files: list[Path], port: int) -> None:
    """C-STORE to the node, as a modality does."""
    entity = AE("MODALITY")
    datasets = [pydicom.dcmread(file) for file in files]
    for sop_class in {str(one.SOPClassUID) for one in datasets}:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="SIGHTLINE")
    for file, dataset in zip(files, datasets, strict=True):
        print(f"C-STORE {file.name}: 0x{association.send_c_store(dataset).Status:04X}")
    association.release()


def main(out: Path = Path("node-demo"), stay: bool = False) -> int:
    """Prepare, serve, send, and show what came back.

    Args:
        out: folder to write.
        stay: keep node and PACS up until Ctrl-C.
    """
    run, files = prepare(out)
    installed = shutil.which("Orthanc", path=os.environ.get("PATH", "") + ":/usr/sbin") is not None
    port, pacs_port, metrics_port = free_port(), free_port(), free_port()
    rule = {"when": {"modality": ["DX"], "body_part": ["WRIST"]}, "run": str(run.resolve())}
    plain = {
        "name": "node-demo",
        "keep": str((out / "keep").resolve()),
        "dicom": {
            "aet": "SIGHTLINE",
            "port": port,
            "plain": True,
            "callers": {"MODALITY": ["127.0.0.1"], "PACS": ["127.0.0.1"]},
        },
        "metrics": {"port": metrics_port},
        "destinations": {
            "pacs": {"kind": "dicom", "aet": "PACS", "address": "127.0.0.1", "port": pacs_port, "commit": installed}
        },
        "rules": [rule | {"send": {"to": ["pacs"], "objects": ["findings", "marks", "regions", "states", "picture"]}}],
        "settle_s": 3,
    }
    shutil.rmtree(out / "keep", ignore_errors=True)
    config = out / "NODE.yaml"
    config.write_text(yaml.safe_dump(plain, sort_keys=False))
    command("node", "check", config, *files)
    with orthanc(out, pacs_port, port) if installed else keeper(pacs_port) as held:
        with (out / "node.log").open("wb") as log:
            node = subprocess.Popen([*SIGHTLINE, "serve", str(config)], stderr=log)
        try:
            ready = f"http://127.0.0.1:{metrics_port}/readyz"
            print(f"$ sightline serve {config}", flush=True)
            if not wait_until_ready(ready, node):
                print(f"The node was not ready within {PATIENCE_S} s; {out / 'node.log'} says why.")
                return 1
            print(f"ready: {ready}", flush=True)
            send(files, port)
            begun = last = time.monotonic()
            before = 0
            # results come a few at a time: wait until nothing more has come for some seconds
            while time.monotonic() - begun < PATIENCE_S and (not before or time.monotonic() - last < 4):
                if len(held()) > before:
                    before, last = len(held()), time.monotonic()
                    print(f"after {last - begun:.1f} s: {before} results at the PACS", flush=True)
                time.sleep(0.2)
            for line in held():
                print(f"  {line}")
            if before and not any("MARKS" in line for line in held()):
                print("  (no marks and no regions: the run calls no finding in this study)")
            command("node", "show", config)
            study = pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID
            command("node", "show", config, study)
            if not before:
                print(f"No result came within {PATIENCE_S} s; {out / 'node.log'} says more.")
            elif stay:
                print("Ctrl-C ends it")
                node.wait()
            else:
                print(f"Everything lies in {out}. The same with node and PACS left on, to send and to look at:")
                print(f"  {sys.executable} {sys.argv[0]} --out {out} --stay")
            return 0 if before else 1
        except KeyboardInterrupt:
            return 0
        finally:
            node.send_signal(signal.SIGTERM)
            print(f"node ended with status {node.wait(90)}")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
