"""The child process that decodes and judges: what comes from outside is only ever parsed and decoded in here.

It reads one JSON line a job from its standard input and answers with one JSON line. Bounds are the kernel's: memory by
RLIMIT_AS, processor seconds of the start and of each job by RLIMIT_CPU, no network of its own where the kernel allows,
niced, and it dies with its parent. Whatever kills it at a job costs one try of that job.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sightline.errors import SightlineError

_PR_SET_PDEATHSIG = 1
# the node's own threads come first, so that receiving keeps its pace
NICE = 5
# processor seconds until the runs are open: a machine that is busy may take any time for them
START_CPU_S = 300.0
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
# folder, codes.yaml, engine
Opened = tuple[Path, Path | None, str]
Prepare = Callable[[Sequence[Opened]], None]


def serve_jobs(
    judge: Judge, bounds: tuple[int, float], source: TextIO, answers: TextIO, prepare: Callable[[], None] | None = None
) -> None:
    """Answer jobs until the input ends.

    Args:
        judge: what judges one job.
        bounds: bytes of address space, and processor seconds a job.
        source: lines of jobs.
        answers: lines of answers; nothing else may be written to it.
        prepare: done before the process says that it is ready, so that no study waits for it; should it fail, that is
            said with it, and a job says why again.
    """
    memory, cpu_s = bounds
    bind_process(memory)
    bind_cpu(START_CPU_S)
    trouble = ""
    if prepare is not None:
        try:
            prepare()
        except Exception as error:  # whatever it is: the node is told, and goes on
            trouble = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    answers.write(json.dumps({"ready": True, "trouble": trouble}) + "\n")
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
        bind_cpu(cpu_s)
        started = time.perf_counter()
        try:
            answer = judge(Request(**plain))
            reply: dict[str, Any] = {
                "results": [(str(file), kind) for file, kind in answer.results],
                "refused": [dict(one) for one in answer.refused],
                "readings": {name: dict(one) for name, one in answer.readings.items()},
            }
        except SightlineError as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        except MemoryError:
            reply = {"error": f"more than {memory / 2**20:.0f} MiB of memory"}
        except Exception as error:  # a study must not be able to end the node's work
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        reply["seconds"] = time.perf_counter() - started
        answers.write(json.dumps(reply) + "\n")
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
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bind_cpu(cpu_s: float) -> None:
    """Allow this process `cpu_s` more seconds of processor time; the kernel ends it after them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + cpu_s) + 1, hard))


def main(judge: Judge, prepare: Prepare | None = None) -> None:
    """Entry of a child: `python -m ... MEMORY CPU_SECONDS RUNS`; what libraries print goes to standard error.

    RUNS is a JSON list of (folder, codes.yaml or null, engine): what `prepare` opens before the first job.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    runs = [(Path(run), Path(codes) if codes else None, engine) for run, codes, engine in json.loads(sys.argv[3])]
    ready = None if prepare is None else lambda: prepare(runs)
    serve_jobs(judge, (int(sys.argv[1]), float(sys.argv[2])), sys.stdin, answers, ready)
