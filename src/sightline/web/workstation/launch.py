"""Starting the workstation: a cohort, a free port, an address to open."""

from __future__ import annotations

import ipaddress
import logging
import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from sightline.errors import LayoutError, SightlineError, count_noun, quote_command
from sightline.structures.case import Case, Cohort

PORT = 8765


class StartRefused(SightlineError):
    """A workstation that cannot be started like this."""


@dataclass(frozen=True)
class Start:
    """How the command was typed.

    Attributes:
        cohort: folder of a cohort, or of pictures.
        keep: folder of the store; beside the cohort where None.
        database: a database URL.
        runs: folders of runs.
        dissection: folder of a dissection.
        host: address to listen on.
        port: 0 takes a free one.
        tls_cert: certificate file.
        tls_key: its key.
        behind_proxy: the URL under which a proxy with TLS shows the workstation.
        alone: one person, no accounts.
        adopt: take over added studies.
        open_browser: open the address.
        quiet: print the address alone.
        classes: of a folder of pictures.
    """

    cohort: tyro.conf.Positional[Path]
    keep: Path | None = None
    database: str | None = None
    runs: Sequence[Path] = ()
    dissection: Path | None = None
    host: str = "127.0.0.1"
    port: int = PORT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: str | None = None
    alone: bool = False
    adopt: bool = False
    open_browser: bool = False
    quiet: bool = False
    classes: tuple[str, ...] = ()


def require_extra() -> None:
    """Refuse to start without the packages of the extra `web`.

    Raises:
        StartRefused: one is missing; says the pip command that brings it.
    """
    from importlib.util import find_spec

    missing = [
        name for name in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "argon2", "zxcvbn") if not find_spec(name)
    ]
    if missing:
        raise StartRefused(
            f"The workstation needs {', '.join(missing)}.", "Install it with: pip install 'sightline-radiology[web]'"
        )


def choose_keep(cohort: Path, keep: Path | None) -> Path:
    """Where marks lie: beside the cohort, which is written to by its own writer alone."""
    if keep is not None:
        return keep
    whole = cohort.absolute()
    return whole.with_name(f"{whole.name}.workstation")


def read_studies(folder: Path, classes: Sequence[str] = ()) -> Cohort:
    """A cohort in our layout, or a folder of pictures as a cohort of studies of one picture each.

    Args:
        folder: of either.
        classes: that readers of a folder of pictures may choose among.

    Raises:
        LayoutError: nothing there that could be shown.
    """
    if not folder.exists():
        raise LayoutError(f"{folder} does not exist.", "Give the folder of a cohort, or of radiographs.")
    if (folder / "cohort.json").is_file():
        from sightline.data.datasets.folder.reader import read_cohort

        return read_cohort(folder)
    from sightline.io.image import find_images

    pictures = find_images(folder)
    if not pictures:
        raise LayoutError(
            f"{folder} holds neither a cohort (cohort.json) nor pictures.",
            "Draw one to try with: sightline cohort phantom radiographs DEST",
        )
    root = folder if folder.is_dir() else folder.parent
    names = [path.relative_to(root).with_suffix("").as_posix() for path in pictures]
    if len(set(names)) < len(names):
        names = [path.relative_to(root).as_posix() for path in pictures]
    from sightline.web.workstation.service import UNREAD

    cases = tuple(Case(name, name, name, path, UNREAD) for name, path in zip(names, pictures, strict=True))
    return Cohort(
        root.absolute().name, (UNREAD, *classes), cases, root, {"source": "a folder of pictures, not labelled"}
    )


def list_addresses(start: Start, port: int) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Host names that are answered, origins that may change something, and whether the browser speaks TLS.

    Raises:
        StartRefused: a name or address that others can reach, without TLS.
    """
    scheme = "https" if start.tls_cert is not None else "http"
    if start.behind_proxy is not None:
        from urllib.parse import urlsplit

        parts = urlsplit(start.behind_proxy)
        if parts.scheme != "https" or not parts.netloc or parts.path not in ("", "/"):
            raise StartRefused(f"--behind-proxy is {start.behind_proxy!r}.", "Give https://NAME, as browsers see it.")
        return (parts.netloc, f"127.0.0.1:{port}"), (f"https://{parts.netloc}",), True
    if (start.tls_cert is None) != (start.tls_key is None):
        raise StartRefused("TLS needs a certificate and its key.", "Give --tls-cert and --tls-key together.")
    if not _is_loopback(start.host) and scheme == "http":
        raise StartRefused(
            f"{start.host} can be reached by others, and passwords would travel bare.",
            "Give --tls-cert and --tls-key, or --behind-proxy URL; or leave --host out.",
        )
    names = ["127.0.0.1", "localhost"] if _is_loopback(start.host) else [start.host]
    if start.host in ("0.0.0.0", "::"):
        names = [socket.getfqdn(), socket.gethostname(), "127.0.0.1", "localhost"]
    elif start.host not in names:
        names.insert(0, f"[{start.host}]" if ":" in start.host else start.host)
    hosts = [f"{name}:{port}" for name in dict.fromkeys(names)]
    if port == (443 if scheme == "https" else 80):
        hosts += names
    return tuple(hosts), tuple(f"{scheme}://{host}" for host in hosts), scheme == "https"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        StartRefused: the port is taken, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it an answer waits 40 ms for its body
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise StartRefused(
            f"Port {port} of {host} cannot be taken ({error.strerror}).",
            "Another workstation may run there; give --port 0 for a free one.",
        ) from None
    bound.listen(128)
    return bound


def serve(start: Start) -> int:
    """Serve until Ctrl+C.

    Raises:
        SightlineError: it cannot be started.
    """
    require_extra()
    from sightline.web.workstation.service import Workstation, WorkstationOptions

    cohort = read_studies(start.cohort, start.classes)
    keep = choose_keep(start.cohort, start.keep)
    list_addresses(start, start.port or 1)  # refuses before a port is taken
    bound = open_listening_socket(start.host, start.port)
    try:
        port = int(bound.getsockname()[1])
        hosts, origins, secure = list_addresses(start, port)
        # with others who could come in, somebody must have an account first
        alone = True if start.alone else None if _is_loopback(start.host) and start.behind_proxy is None else False
        options = WorkstationOptions(
            keep, start.database, alone, start.adopt, tuple(start.runs), start.dissection, hosts, origins, secure
        )
        desk = Workstation(cohort, options)
        desk.maps.start()
    except BaseException:
        bound.close()
        raise
    return _run_server(desk, start, bound)


def _run_server(desk: object, start: Start, bound: socket.socket) -> int:
    import uvicorn

    from sightline.web.workstation.accounts.readers import has_accounts
    from sightline.web.workstation.api.app import create_app
    from sightline.web.workstation.service import Workstation

    assert isinstance(desk, Workstation)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    if not desk.alone and not has_accounts(desk.database):
        bound.close()
        desk.close()
        command = quote_command("sightline", "readers", "add", desk.options.keep, "NAME", "--role", "lead")
        raise StartRefused("There is no account yet.", f"Make one with: {command}   or start with --alone.")
    address = desk.options.origins[0] + (f"/?token={desk.token}" if desk.alone else "/")
    counts = f"{count_noun(len(desk.cohort), 'image')} of {desk.cohort.name}; marks are kept in {desk.options.keep}"
    print(address if start.quiet else f"{counts}\nThe workstation: {address}\nCtrl+C ends it.", flush=True)
    if start.open_browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        create_app(desk), log_level="warning", access_log=False, server_header=False, date_header=True,
        ssl_certfile=start.tls_cert, ssl_keyfile=None if start.tls_key is None else str(start.tls_key),
        proxy_headers=start.behind_proxy is not None, forwarded_allow_ips="127.0.0.1", timeout_graceful_shutdown=5,
        limit_concurrency=512,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        bound.close()
        desk.close()
    return 0
