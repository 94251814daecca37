"""`python -m benchmarks.node_delivery`: how long a study takes from its last C-STORE to the results at the PACS.

A node in a process of its own with a run that was exported to onnxruntime, a keeper of pynetdicom as PACS, and phantom
studies sent one after the other as a modality does. Weights are random: they change no time. The goals are settle + 5 s
for a small network and settle + 15 s for a ResNet-50 at 512 px. Prints a line a network, with the load.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import pydicom
import torch
import tyro
import yaml
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt

from benchmarks.node import free_port, memory, processor

GOALS = {"small": 5.0, "resnet50": 15.0}
SIGHTLINE = (sys.executable, "-c", "from sightline.cli import main; main()")
OBJECTS = ["findings", "marks", "regions", "states", "picture"]


def make_run(folder: Path, cohort: Path, network: str) -> Path:
    """A run of random weights with its gate's header check and its graph."""
    from sightline.data.datasets.folder.reader import read_cohort
    from sightline.inference.gate.gate_file import Gate, write_gate
    from sightline.inference.gate.header import HeaderLimits
    from sightline.papers.catalogue import CATALOGUE
    from sightline.papers.overrides import Changes, apply_changes
    from sightline.papers.recipes import find_recipe
    from sightline.training.engine import Engine
    from sightline.training.train import train

    torch.manual_seed(0)
    large = Changes(backbone="resnet50", weights="none", size=512, steps=1, batch_size=2)
    recipe = apply_changes(find_recipe("small-guided"), Changes(steps=1) if network == "small" else large)
    run = folder / network
    train(recipe, read_cohort(cohort), run, CATALOGUE, Engine(device="cpu", quiet=True))
    write_gate(run, Gate(HeaderLimits(modality=("DX",), body_part=("WRIST",)), {}))
    subprocess.run([*SIGHTLINE, "export", str(run), "--as", "onnx", "--out", str(run)], check=True)
    return run


@contextmanager
def keeper(port: int, kept: dict[str, float]) -> Iterator[None]:
    """A PACS that notes when each object came."""

    def store(event: evt.Event) -> int:
        kept[str(event.request.AffectedSOPInstanceUID)] = time.monotonic()  # type: ignore[union-attr]
        return 0x0000

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), ExplicitVRLittleEndian)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield
    finally:
        server.shutdown()


def send(files: list[Path], port: int) -> None:
    """One association for all images of a study."""
    entity = AE("MOD")
    datasets = [pydicom.dcmread(file) for file in files]
    for sop_class in {str(one.SOPClassUID) for one in datasets}:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="SIGHTLINE")
    for dataset in datasets:
        if association.send_c_store(dataset).Status != 0x0000:
            raise SystemExit("the node did not take an image")
    association.release()


def deliver(network: str, run: Path, studies: list[list[Path]], folder: Path, settle_s: float) -> None:
    """Send each study, wait for its results, and print the times."""
    port, pacs, metrics = free_port(), free_port(), free_port()
    dicom = {"aet": "SIGHTLINE", "port": port, "plain": True, "callers": {"MOD": ["127.0.0.1"]}}
    rule = {"when": {"modality": ["DX"]}, "run": str(run), "send": {"to": ["pacs"], "objects": OBJECTS}}
    plain = {
        "name": "bench", "keep": str(folder / f"keep-{network}"), "dicom": dicom, "metrics": {"port": metrics},
        "destinations": {"pacs": {"kind": "dicom", "aet": "PACS", "address": "127.0.0.1", "port": pacs}},
        "rules": [rule], "settle_s": settle_s, "engine": "onnx",
    }  # fmt: skip
    config = folder / f"{network}.yaml"
    config.write_text(yaml.safe_dump(plain))
    kept: dict[str, float] = {}
    with keeper(pacs, kept), (folder / "log").open("wb") as log:
        node = subprocess.Popen([*SIGHTLINE, "serve", str(config)], stderr=log)
        try:
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=2)
                    break
                except OSError:
                    if node.poll() is not None:
                        raise SystemExit((folder / "log").read_text()) from None
                    time.sleep(0.1)
            firsts, lasts, counts = [], [], []
            for files in studies:
                send(files, port)
                sent, before = time.monotonic(), len(kept)
                # results of a study leave together: what has not come 2 s after the last is not coming
                while time.monotonic() - sent < 180 and (
                    len(kept) == before or time.monotonic() - max(kept.values()) < 2.0
                ):
                    time.sleep(0.05)
                times = sorted(kept.values())[before:]
                if not times:
                    raise SystemExit(f"no result within 180 s: {(folder / 'log').read_text()[-600:]}")
                firsts.append(times[0] - sent - settle_s)
                lasts.append(times[-1] - sent - settle_s)
                counts.append(len(times))
            print(
                f"{network}, onnxruntime: {len(studies)} studies of {min(map(len, studies))} to "
                f"{max(map(len, studies))} images, {sum(counts)} results; after settle ({settle_s:g} s) first result "
                f"in {statistics.median(firsts):.1f} s (median), last in {statistics.median(lasts):.1f} s, "
                f"at most {max(lasts):.1f} s; goal {GOALS[network]:g} s; node {memory(node.pid):.0f} MB, "
                f"{processor(node.pid):.1f} s of processor; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(90)


def main(
    networks: tuple[Literal["small", "resnet50"], ...] = ("small", "resnet50"), studies: int = 3, settle_s: float = 2.0
) -> int:
    """Measure.

    Args:
        networks: which.
        studies: sent one after the other, each after the results of the one before.
        settle_s: as in NODE.yaml.
    """
    folder = Path(tempfile.mkdtemp(prefix="node-delivery-"))
    try:
        phantom = (*SIGHTLINE, "cohort", "phantom", "radiographs")
        subprocess.run([*phantom, str(folder / "cohort"), "--studies", "8", "--seed", "1"], check=True)
        subprocess.run(
            [*phantom, str(folder / "sent"), "--studies", str(studies), "--seed", "2", "--as", "dicom"], check=True
        )
        by_study: dict[str, list[Path]] = {}
        for file in sorted((folder / "sent").rglob("*.dcm")):
            uid = str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID)
            by_study.setdefault(uid, []).append(file)
        for network in networks:
            run = make_run(folder, folder / "cohort", network)
            deliver(network, run, list(by_study.values()), folder, settle_s)
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
