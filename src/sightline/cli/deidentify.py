"""The command that writes copies of DICOM files without what identifies a patient."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from sightline.cli.options import hold_folder
from sightline.errors import RunError, count_noun


@dataclass(frozen=True)
class Deidentify:
    """Write de-identified copies of DICOM files (PS3.15 Basic Profile) whose references still match.

    What must not be passed on (the key, original file names, text found in pixels) goes into a private folder.
    """

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Folder (or file) of the originals; it is only read."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write the copies and report.csv into."""
    keep: tuple[Literal["dates", "moved-dates", "device", "patient", "uids", "institution"], ...] = ()
    """What to keep: dates, dates shifted by a fixed number of days per patient, device, patient's sex and age, ..."""
    key: Path | None = None
    """The site's key; the same key gives the same pseudonyms. Default: site.key in the private folder, made once."""
    private: Path | None = None
    """Folder for what must not leave the site; default: DESTINATION-private."""
    blank: Annotated[UseAppendAction[tuple[tuple[int, int, int, int], ...]], arg(metavar="TOP LEFT BOTTOM RIGHT")] = ()
    """A box to blank in every picture: start row, start column, stop row, stop column; may be repeated."""
    pixels: Literal["check", "seen"] = "check"
    """check: pictures that may contain text are held back; seen: a person has checked them."""
    text_search: Literal["auto", "off"] = "auto"
    """auto: look for text in pixels (rapidocr, else tesseract), a few seconds per picture; off: do not."""
    quiet: bool = False
    """No progress bar."""

    @hold_folder(lambda command: command.destination)
    def run(self) -> int:
        """Write; 1 when something was held back."""
        from sightline.io.deidentification.folder import (
            LOOK_AT,
            NAMES,
            REPORT,
            Wishes,
            deidentify_folder,
            list_dicom_files,
        )
        from sightline.io.deidentification.keys import read_site_key
        from sightline.io.deidentification.table import Rules
        from sightline.io.progress import show_progress

        private = self.private or self.destination.with_name(self.destination.name + "-private")
        if self.key is not None and self.destination.resolve() in self.key.resolve().parents:
            raise RunError(f"{self.key} would leave with the copies.", "Keep the key outside the destination.")
        wishes = Wishes(Rules(self.keep), self.blank, self.pixels == "seen", self.text_search == "auto")
        total = len(list_dicom_files(self.source)[0])
        key = read_site_key(self.key or private / "site.key")
        with show_progress("clean", total, quiet=self.quiet) as advance:
            outcome = deidentify_folder(self.source, self.destination, private, key, wishes, advance)
        for file, reason in outcome.refused[:20]:
            print(f"{file}: {reason}", file=sys.stderr)
        if len(outcome.refused) > 20:
            print(f"and {len(outcome.refused) - 20} more; see {private / NAMES}", file=sys.stderr)
        if wishes.search and not outcome.finder:
            print(
                "Words in pixels were not searched: neither rapidocr (pip install 'sightline-radiology[deid]') nor "
                "tesseract is installed.",
                file=sys.stderr,
            )
        print(
            f"{count_noun(outcome.written, 'file')} written, {len(outcome.refused)} held back, {outcome.others} left "
            f"out as not DICOM, {count_noun(outcome.look_at, 'line')} of words in pixels; see "
            f"{self.destination / REPORT}, {private / NAMES} and {private / LOOK_AT}"
        )
        return 1 if outcome.refused else 0
