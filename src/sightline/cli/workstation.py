"""The workstation, its readers, plans and marks, from the command line."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from sightline.errors import RunError

DEMO = Path("workstation-demo")


@dataclass(frozen=True)
class ServeWorkstation:
    """Open the workstation, where experts mark studies in a browser, in measured time."""

    cohort: Annotated[Positional[Path | None], arg(metavar="[COHORT]")] = None
    """Folder of a cohort or of radiographs; default: a demo cohort drawn into ./workstation-demo."""
    runs: Annotated[UseAppendAction[tuple[Path, ...]], arg(name="run")] = ()
    """A trained run whose maps are compared and proposed; repeat it for up to four."""
    dissection: Path | None = None
    """Folder of a dissection whose units are named."""
    keep: Path | None = None
    """Folder of marks; default: COHORT.workstation beside the cohort."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, for a department; default: SQLite in the folder of marks."""
    port: int = 8765
    """Port; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs TLS."""
    tls_cert: Path | None = None
    """TLS certificate; needs --tls-key."""
    tls_key: Path | None = None
    """Key of the certificate."""
    behind_proxy: str | None = None
    """https://NAME under which a proxy shows the workstation."""
    alone: bool = False
    """One person without accounts (the default if there are none)."""
    adopt: bool = False
    """Take over a cohort to which studies were added."""
    classes: tuple[str, ...] = ()
    """Classes to choose among, for a folder of pictures without labels."""
    open: bool = False
    """Open the address in the browser."""
    quiet: bool = False
    """Print only the address."""

    def run(self) -> int:
        """Serve until Ctrl+C."""
        from sightline.web.workstation.launch import Start, require_extra, serve

        require_extra()
        if len(self.runs) > 4:
            raise RunError(f"At most four runs are compared; got {len(self.runs)}.", "Leave some out.")
        cohort = self.cohort or _draw_demo_cohort(quiet=self.quiet)
        return serve(
            Start(
                cohort, self.keep, self.database, self.runs, self.dissection, self.host, self.port, self.tls_cert,
                self.tls_key, self.behind_proxy, self.alone, self.adopt, self.open, self.quiet, self.classes,
            )
        )  # fmt: skip


def _draw_demo_cohort(*, quiet: bool) -> Path:
    """The demo cohort, drawn on first use."""
    folder = DEMO / "cohort"
    if not (folder / "cohort.json").is_file():
        from sightline.data.phantoms.radiographs.cohort import write_radiographs

        if not quiet:
            print(f"Drawing a demo cohort into {folder} ...", flush=True)
        write_radiographs(folder, studies=12)
    return folder


@dataclass(frozen=True)
class AddReader:
    """Create an account."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name to sign in with."""
    role: Literal["reader", "adjudicator", "lead", "viewer"] = "reader"
    """What the reader may do."""
    display: str = ""
    """Display name."""
    password_file: Path | None = None
    """File whose first line is the password; default: asks for it."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Make it."""
        from sightline.web.workstation.accounts.readers import add_reader
        from sightline.web.workstation.store.database import open_database

        password = _read_password(self.password_file)
        with open_database(self.keep, self.database) as store, store.writing() as connection:
            add_reader(
                connection, self.name, display=self.display, role=self.role, password=password, who="command line"
            )
        print(f"{self.name} can sign in as {self.role}.")
        return 0


def _read_password(file: Path | None) -> str:
    if file is not None:
        return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first, again = getpass.getpass("Password: "), getpass.getpass("Once more: ")
    if first != again:
        raise RunError("The two passwords differ.", "Type it again.")
    return first


@dataclass(frozen=True)
class ListReaders:
    """List accounts."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Print name, role, state."""
        from sightline.web.workstation.accounts.readers import list_readers
        from sightline.web.workstation.store.database import open_database

        with open_database(self.keep, self.database) as store, store.reading() as connection:
            for row in list_readers(connection):
                state = "disabled" if row["disabled_at"] else "open" if row["hash"] else "no password"
                print(f"{row['name']}\t{row['role']}\t{state}\t{row['display']}")
        return 0


@dataclass(frozen=True)
class DisableReader:
    """Close an account; its marks are kept."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the account."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Close it and end its sessions."""
        _change(self.keep, self.database, self.name, {"disabled": True})
        print(f"{self.name} can no longer sign in.")
        return 0


@dataclass(frozen=True)
class ChangePassword:
    """Set a new password and end all sessions."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the account."""
    password_file: Path | None = None
    """File whose first line is the password; default: asks for it."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Set it."""
        _change(self.keep, self.database, self.name, {"password": _read_password(self.password_file)})
        print(f"{self.name} has a new password.")
        return 0


def _change(keep: Path, database: str | None, name: str, changes: dict[str, object]) -> None:
    from sightline.web.workstation.accounts.readers import AccountRefused, change_reader, find_reader
    from sightline.web.workstation.store.database import open_database

    with open_database(keep, database) as store, store.writing() as connection:
        row = find_reader(connection, name)
        if row is None:
            raise AccountRefused(f"There is no reader {name!r}.", "Look at `sightline readers list`.")
        change_reader(connection, row["id"], who="command line", changes=changes)


@dataclass(frozen=True)
class AccountsCommand:
    """Accounts of the workstation: add, list, disable, or set a password."""

    action: OmitArgPrefixes[
        Annotated[AddReader, subcommand("add")]
        | Annotated[ListReaders, subcommand("list")]
        | Annotated[DisableReader, subcommand("disable")]
        | Annotated[ChangePassword, subcommand("passwd")]
    ]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()
