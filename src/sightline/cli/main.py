"""The command line: parse, call one command, end with its exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from sightline.cli.cohorts import CohortCommand, CohortImport, build_layout_command, describe_layouts
from sightline.cli.deidentify import Deidentify
from sightline.cli.evidence import (
    Calibrate,
    Compare,
    FillChecklists,
    Power,
    Readers,
    Shortcuts,
    Stress,
)
from sightline.cli.marks import MarksCommand, ReadsCommand
from sightline.cli.node import MakeGate, NodeCommand, Serve
from sightline.cli.options import require_sound
from sightline.cli.runs import Assemble, Evaluate, MakeEnsemble, Train
from sightline.cli.serve import Dissect, Explain, Export, Predict
from sightline.cli.tables import CompareAnswers, Demo, MakeTable, Recipes, SearchFields, Verify, Version, WriteCapsule
from sightline.cli.workstation import AccountsCommand, ServeWorkstation
from sightline.errors import SightlineError

Command = Union[  # noqa: UP007  # tyro reads the annotations of a Union
    Annotated[CohortCommand, subcommand("cohort")],
    Annotated[Train, subcommand("train")],
    Annotated[Assemble, subcommand("cascade")],
    Annotated[MakeEnsemble, subcommand("ensemble")],
    Annotated[Evaluate, subcommand("evaluate")],
    Annotated[Calibrate, subcommand("calibrate")],
    Annotated[Compare, subcommand("compare")],
    Annotated[Power, subcommand("power")],
    Annotated[Readers, subcommand("mrmc")],
    Annotated[Shortcuts, subcommand("shortcuts")],
    Annotated[Stress, subcommand("stress")],
    Annotated[FillChecklists, subcommand("report")],
    Annotated[WriteCapsule, subcommand("capsule")],
    Annotated[Verify, subcommand("verify")],
    Annotated[Predict, subcommand("predict")],
    Annotated[Export, subcommand("export")],
    Annotated[Explain, subcommand("explain")],
    Annotated[Dissect, subcommand("dissect")],
    Annotated[Deidentify, subcommand("deidentify")],
    Annotated[MakeGate, subcommand("gate")],
    Annotated[Serve, subcommand("serve")],
    Annotated[NodeCommand, subcommand("node", description="A hospital node: check it, show and mend jobs, report.")],
    Annotated[MakeTable, subcommand("table")],
    Annotated[SearchFields, subcommand("search")],
    Annotated[CompareAnswers, subcommand("answers")],
    Annotated[ServeWorkstation, subcommand("workstation")],
    Annotated[AccountsCommand, subcommand("readers")],
    Annotated[ReadsCommand, subcommand("reads")],
    Annotated[MarksCommand, subcommand("marks")],
    Annotated[Recipes, subcommand("recipes")],
    Annotated[Demo, subcommand("demo")],
    Annotated[Version, subcommand("version")],
]


# words of earlier versions, and what they are called now
ALIASES = {"committee": "ensemble"}


_GOES_ON = "the same command resumes"
# what the same command does after Ctrl-C, where it does not start again
_AGAIN = {
    **dict.fromkeys(("train", "table", "search"), _GOES_ON),
    "predict": f"{_GOES_ON} (radiographs with --as dicom start again)",
}


# an option that is left out is None; nobody types it, but for `--fractions None` of a layout that splits by default
_CONFIG = (tyro.conf.DisallowNone,)


def parse_command(words: list[str]) -> Any:
    """The command that was typed; a layout's import has a parser of its own: its help shows its options alone."""
    if words and words[0] in ALIASES:
        print(f"sightline: {words[0]} is called {ALIASES[words[0]]} now.", file=sys.stderr)
        words = [ALIASES[words[0]], *words[1:]]
    if words[:2] == ["cohort", "import"]:
        if len(words) > 2 and not words[2].startswith("-"):
            from sightline.data.datasets.layouts import may_stay_unsplit

            program, importing = f"sightline cohort import {words[2]}", build_layout_command(words[2])
            return tyro.cli(
                importing, prog=program, args=words[3:], config=() if may_stay_unsplit(words[2]) else _CONFIG
            )
        program = "sightline cohort import"
        return tyro.cli(CohortImport, prog=program, description=describe_layouts(), args=words[2:], config=_CONFIG)
    description = "Radiology classifiers that look where experts look."
    return tyro.cli(Command, prog="sightline", description=description, args=words, config=_CONFIG)


def main(args: list[str] | None = None) -> None:
    """Parse, call one command, and end with its exit code; errors a user can fix are one line."""
    for stream in (sys.stdout, sys.stderr):
        # a name of a file, or a dash, that the terminal's encoding lacks must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if args is None else args
    try:
        command = parse_command(words)
        require_sound(command)
        code = command.run()
        sys.stdout.flush()
    except SightlineError as error:
        print(f"sightline: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # whoever read what is printed (`| head`) has gone: nothing more is to be said, also not while Python ends
        if args is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        lack = f" ({str(error).splitlines()[0]})" if str(error) else ""
        remedy = "Use a smaller --size or --batch-size, fewer --replicates or --workers, or a machine with more."
        print(f"sightline: There is not enough memory{lack}. Remedy: {remedy}", file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"sightline: {error}. Remedy: Check the path, its permissions and the free space.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        _end_at_once_when_interrupted(args)
        again = _AGAIN.get(words[0] if words else "", "the same command starts again")
        print(f"sightline: stopped; {again}.", file=sys.stderr)
        code = 130
    _end_at_once_when_interrupted(args)
    sys.exit(code)


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether it says that memory does not suffice: numpy's error, torch's for the processor or a GPU, or what torch
    says where the system ended a process that reads pictures."""
    words = str(error).lower()
    phrases = ("can't allocate memory", "out of memory", "dataloader worker")
    return isinstance(error, MemoryError) or any(phrase in words for phrase in phrases)


def _end_at_once_when_interrupted(args: list[str] | None) -> None:
    """A Ctrl-C from now on ends the process without a traceback; a caller's own process stays as it is."""
    if args is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
