"""The child process that decodes and judges: what comes from outside is only ever parsed and decoded in here.

It reads one JSON line a job from its standard input and answers with one JSON line. Bounds are the kernel's: memory by
RLIMIT_AS, processor seconds a job by RLIMIT_CPU, no network of its own where the kernel allows, niced, and it dies with
its parent. Whatever kills it costs one try of one job.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sightline.errors import SightlineError

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000


@dataclass(frozen=True)
class Request:
    """One job, as the child gets it.

    Attributes:
        run: folder of the run.
        engine: `torch`, `onnx` or `auto`.
        images: by SHA-256, the file of each.
        left_out: images of the study that are not judged: sha256, door (the check that refused), reason.
        objects: kinds of results that are wanted.
        out: empty folder for them.
        received: seconds since 1970 of the newest image: the date of the results, so that a second try has equal bytes.
        codes: codes.yaml, or None.
        predecessor: of the findings that these replace, SOP class, SOP instance, study and series UIDs.
    """

    run: Path
    engine: str
    images: Mapping[str, Path]
    left_out: tuple[Mapping[str, str], ...]
    objects: tuple[str, ...]
    out: Path
    received: float
    codes: Path | None
    predecessor: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Answer:
    """What the child says.

    Attributes:
        results: (file, kind) of each DICOM object in `Request.out`.
        refused: images that a check did not let in: sha256, door (the check that refused), reason.
        readings: by SHA-256, numbers and words of each judged image for monitoring; no names.
    """

    results: tuple[tuple[Path, str], ...]
    refused: tuple[Mapping[str, str], ...]
    readings: Mapping[str, Mapping[str, float | str]]


Judge = Callable[[Request], Answer]


def serve_jobs(judge: Judge, memory: int, cpu_s: float, source: TextIO, answers: TextIO) -> None:
    """Answer jobs until the input ends.

    Args:
        judge: what judges one job.
        memory: bytes of address space.
        cpu_s: processor seconds a job.
        source: lines of jobs.
        answers: lines of answers; nothing else may be written to it.
    """
    bind_process(memory)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in source:
        plain = json.loads(line)
        plain["images"] = {name: Path(file) for name, file in plain["images"].items()}
        for name in ("run", "out"):
            plain[name] = Path(plain[name])
        plain["codes"] = Path(plain["codes"]) if plain["codes"] else None
        for name in ("left_out", "objects"):
            plain[name] = tuple(plain[name])
        plain["predecessor"] = tuple(tuple(one) for one in plain["predecessor"])
        bind_job(cpu_s)
        started = time.perf_counter()
        try:
            answer = judge(Request(**plain))
            said: dict[str, Any] = {
                "results": [(str(file), kind) for file, kind in answer.results],
                "refused": [dict(one) for one in answer.refused],
                "readings": {name: dict(one) for name, one in answer.readings.items()},
            }
        except SightlineError as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        except MemoryError:
            said = {"error": f"more than {memory / 2**20:.0f} MiB of memory"}
        except Exception as error:  # a study must not be able to end the node's work
            said = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        said["seconds"] = time.perf_counter() - started
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def bind_process(memory: int) -> None:
    """Put this process under the bounds that hold for all of its life."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C and service managers may signal the whole group: the node lets a running job end, so its child goes on
    for word in (signal.SIGINT, signal.SIGTERM):
        signal.signal(word, signal.SIG_IGN)
    # as root a network namespace alone, else within a user namespace; where neither is allowed the child has the
    # node's network, which docs/threat_model.md says
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bind_job(cpu_s: float) -> None:
    """Allow this process `cpu_s` more seconds of processor time; the kernel ends it after them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + cpu_s) + 1, hard))


def main(judge: Judge) -> None:
    """Entry of a child: `python -m ... MEMORY CPU_SECONDS`; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve_jobs(judge, int(sys.argv[1]), float(sys.argv[2]), sys.stdin, answers)
