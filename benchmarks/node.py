"""`python -m benchmarks.node`: how fast the node takes objects, each durable before it is acknowledged, and its memory.

A node in a process of its own (no rule takes the images, so nothing is judged), and dcmtk's storescu (else pynetdicom)
as modality: objects of 0.3 MB on one association and on four at once. Prints one line a measure, with the load.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import socket

import numpy as np
import tyro
import yaml
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CR = "1.2.840.10008.5.1.4.1.1.1"
SIDE = 388  # 388 x 388 x 2 bytes are 0.3 MB


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_objects(folder: Path, count: int, group: int) -> None:
    """CRs of 0.3 MB, one a study, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(group)
    for number in range(count):
        uid = f"1.2.826.{group}.{number}"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CR, f"{uid}.1"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID = (
            CR,
            f"{uid}.1",
            uid,
            f"{uid}.2",
        )
        data.PatientID, data.Modality, data.BodyPartExamined = f"P{number}", "CR", "SKULL"
        data.Rows = data.Columns = SIDE
        data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
            1,
            16,
            16,
            15,
            0,
        )
        data.PhotometricInterpretation = "MONOCHROME2"
        data.PixelData = rng.integers(0, 65535, (SIDE, SIDE), dtype=np.uint16).tobytes()
        data.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def send(folder: Path, port: int) -> None:
    """One association for all files of a folder."""
    program = "/usr/bin/storescu" if Path("/usr/bin/storescu").exists() else None
    if program is None:
        raise SystemExit("dcmtk is not installed (apt-get install dcmtk)")
    subprocess.run(
        [program, "-aet", "MOD", "-aec", "SIGHTLINE", "127.0.0.1", str(port), "+sd", str(folder)], check=True
    )


def send_all(folders: list[Path], port: int) -> None:
    """One association a folder, all at once.

    Raises:
        subprocess.CalledProcessError: objects of one of them were not taken, so that there is no rate.
    """
    with ThreadPoolExecutor(len(folders)) as pool:
        for sent in [pool.submit(send, folder, port) for folder in folders]:
            sent.result()


def memory(pid: int) -> float:
    """Resident MB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1e3


def processor(pid: int) -> float:
    """Processor seconds that a process has used: what does not depend on other work on the machine."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main(objects: int = 200, soak: int = 2000) -> int:
    """Measure.

    Args:
        objects: of each of the two rates.
        soak: objects that memory is looked at over.
    """
    folder = Path(tempfile.mkdtemp(prefix="node-bench-"))
    try:
        run = folder / "run"
        run.mkdir()
        (run / "weights.safetensors").write_bytes(b"none")
        from sightline.inference.gate.gate_file import Gate, write_gate
        from sightline.inference.gate.header import HeaderLimits

        write_gate(run, Gate(HeaderLimits(), {}))
        port, metrics = free_port(), free_port()
        dicom = {"aet": "SIGHTLINE", "port": port, "plain": True, "callers": {"MOD": ["127.0.0.1"]}}
        rule = {"when": {"body_part": ["WRIST"]}, "run": str(run)}
        plain = {"name": "bench", "keep": str(folder / "keep"), "dicom": dicom, "metrics": {"port": metrics}}
        (folder / "NODE.yaml").write_text(yaml.safe_dump(plain | {"rules": [rule], "settle_s": 5}))
        begun = time.monotonic()
        command = [sys.executable, "-c", "from sightline.cli import main; main()", "serve", str(folder / "NODE.yaml")]
        node = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=2)
                break
            except OSError:
                if node.poll() is not None:
                    raise SystemExit(f"the node ended with status {node.poll()}") from None
                time.sleep(0.05)
        print(
            f"up after {time.monotonic() - begun:.1f} s, {memory(node.pid):.0f} MB idle, load {os.getloadavg()[0]:.1f}"
        )
        for parts in (1, 4):
            for part in range(parts):
                write_objects(folder / f"in{parts}{part}", objects // parts, 10 * parts + part)
            begun, used = time.monotonic(), processor(node.pid)
            send_all([folder / f"in{parts}{n}" for n in range(parts)], port)
            rate = objects / (time.monotonic() - begun)
            each = 1000 * (processor(node.pid) - used) / objects
            print(
                f"{parts} associations: {rate:.1f} objects of 0.3 MB a second, {each:.0f} ms of processor each",
                flush=True,
            )

        before = memory(node.pid)
        for part, first in enumerate(range(0, soak, 200)):
            write_objects(folder / "soak", min(200, soak - first), 100 + part)
            send(folder / "soak", port)
            shutil.rmtree(folder / "soak")
        print(f"memory {before:.0f} MB, after {soak} objects {memory(node.pid):.0f} MB", flush=True)
        node.send_signal(signal.SIGTERM)
        print(f"ended with status {node.wait(90)}")
        return 0
    finally:
        if node.poll() is None:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
