"""NODE.yaml: what a node receives, from whom, which run judges what, and where results go.

Every word is checked before the node starts; a word that is not known, or a value that cannot be, is refused with its
line. Secrets stand in files or in the environment, never in NODE.yaml itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from sightline.errors import LayoutError, SightlineError
from sightline.io.progress import count_allowed_processes
from sightline.io.yaml_files import read_yaml

MIB = 1024 * 1024
OBJECT_KINDS = ("findings", "marks", "regions", "states", "picture", "map")
ObjectKind = Literal["findings", "marks", "regions", "states", "picture", "map"]


class ConfigurationError(SightlineError):
    """A NODE.yaml that cannot be used: file, line, what stands there, what was expected."""


def parse_bytes(value: object) -> object:
    """`512 MiB` or `2GB` as a number of bytes; whatever is no such text is left for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\s*", value)):
        number, prefix, binary = found.groups()
        return int(float(number) * (1024 if binary else 1000) ** " kMGT".index(prefix or " "))
    return value


def _wrap_in_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_ae_title(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}", value):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return value


def _resolve_beside(path: Path, info: ValidationInfo) -> Path:
    """A relative path is read from the folder of NODE.yaml, wherever the node is started."""
    return Path((info.context or {}).get("folder", ".")) / path


Place = Annotated[Path, AfterValidator(_resolve_beside)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Words = Annotated[tuple[str, ...], BeforeValidator(_wrap_in_list)]
AeTitle = Annotated[str, BeforeValidator(_check_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tls(_Words):
    """Files of one end of TLS; with `clients` (a CA) the other end must show a certificate too."""

    certificate: Place
    key: Place
    clients: Place | None = None


class DicomListener(_Words):
    """The C-STORE listener: who may call, and how much of them is borne."""

    aet: AeTitle
    address: str = "127.0.0.1"
    port: Port = 11112
    tls: Tls | None = None
    plain: bool = False
    callers: dict[str, Words]
    most_associations: Annotated[int, Field(ge=1, le=256)] = 16
    most_bytes: Bytes = 512 * MIB
    most_objects_a_minute: Annotated[int, Field(ge=1)] = 12_000
    most_bytes_a_minute: Bytes = 8 * 1024 * MIB
    idle_s: Annotated[float, Field(gt=0)] = 30.0
    negotiate_s: Annotated[float, Field(gt=0)] = 10.0


class DicomWebListener(_Words):
    """The STOW listener, and QIDO and WADO of the node's own results."""

    address: str = "127.0.0.1"
    port: Port = 8104
    tls: Tls | None = None
    plain: bool = False
    tokens: Place
    most_bytes: Bytes = 512 * MIB
    most_parts: Annotated[int, Field(ge=1)] = 1000


class MetricsListener(_Words):
    """Where `/metrics`, `/healthz` and `/readyz` answer."""

    address: str = "127.0.0.1"
    port: Port = 9104


class DicomDestination(_Words):
    """A PACS that takes C-STORE."""

    kind: Literal["dicom"]
    aet: AeTitle
    address: str
    port: Port
    commit: bool = False
    tls: Tls | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 30.0


class DicomWebDestination(_Words):
    """An archive that takes STOW."""

    kind: Literal["dicomweb"]
    url: str
    token_file: Place | None = None
    token_env: str | None = None
    authority: Place | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 30.0

    def read_token(self) -> str | None:
        """The bearer token, read each time so that a new one needs no restart; None where there is none."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return os.environ.get(self.token_env) if self.token_env else None


Destination = Annotated[DicomDestination | DicomWebDestination, Field(discriminator="kind")]


class RuleConditions(_Words):
    """Which images a rule takes; `""` in a list takes images that do not say."""

    modality: Words | None = None
    body_part: Words | None = None
    view: Words | None = None
    laterality: Words | None = None
    age: str | None = None
    caller: Words | None = None

    @model_validator(mode="after")
    def _age_reads(self) -> RuleConditions:
        self.age_range()
        return self

    def age_range(self) -> tuple[float, float]:
        """Youngest and oldest age in years."""
        if self.age is None:
            return 0.0, float("inf")
        found = re.fullmatch(r"\s*(\d*)\s*-\s*(\d*)\s*", self.age)
        if found is None or not any(found.groups()):
            raise ValueError("an age is written as 16-, -17 or 18-65 (years)")
        low, high = (float(x) if x else None for x in found.groups())
        ages = (0.0 if low is None else low, float("inf") if high is None else high)
        if ages[0] > ages[1]:
            raise ValueError("the lower age comes first")
        return ages


class RuleDelivery(_Words):
    """Where a rule's results go, and as which objects."""

    to: Words = ()
    objects: tuple[ObjectKind, ...] = ("findings", "marks", "picture")


class Rule(_Words):
    """Which images a run judges, and where its results go."""

    name: str = ""
    when: RuleConditions
    run: Place
    codes: Place | None = None
    send: RuleDelivery = RuleDelivery()
    priority: int = 0


class Configuration(_Words):
    """All of NODE.yaml."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    keep: Place
    dicom: DicomListener
    dicomweb: DicomWebListener | None = None
    metrics: MetricsListener = MetricsListener()
    destinations: dict[str, Destination] = {}
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    engine: Literal["auto", "torch", "onnx"] = "auto"
    settle_s: Annotated[float, Field(ge=0)] = 60.0
    silent: bool = False
    workers: Annotated[int, Field(ge=1, le=count_allowed_processes())] = max(1, (os.cpu_count() or 2) // 2)
    tries: Annotated[int, Field(ge=1)] = 3
    most_jobs_a_day: Annotated[int, Field(ge=1)] = 3
    job_cpu_s: Annotated[float, Field(gt=0)] = 30.0
    job_memory: Bytes = 4096 * MIB
    keep_days: Annotated[float, Field(gt=0)] = 7.0
    keep_refused_days: Annotated[float, Field(gt=0)] = 1.0
    least_free: Bytes = 2 * 1000**3
    least_free_share: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def rule_name(self, index: int) -> str:
        """A rule's name, or its run's where it has none."""
        return self.rules[index].name or self.rules[index].run.name

    def rule_of(self, name: str) -> Rule | None:
        """The rule of a name, or None where it is gone since."""
        return next((rule for i, rule in enumerate(self.rules) if self.rule_name(i) == name), None)


def read_configuration(path: Path) -> Configuration:
    """Read and check a NODE.yaml.

    Raises:
        ConfigurationError: naming the file and the line of whatever cannot be used.
    """
    try:
        read = read_yaml(path, "Point at the node's NODE.yaml.")
    except LayoutError as error:
        raise ConfigurationError(error.message, error.remedy) from None
    tree, values = read.root, read.data
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no words and values.", "Start from the example in docs/node.md.")
    try:
        configuration = Configuration.model_validate(values, context={"folder": path.resolve().parent})
    except ValidationError as error:
        lines = [f"{path}, line {_find_line(tree, one['loc'])}: {_explain(one)}" for one in error.errors()]
        raise ConfigurationError(
            "\n".join(dict.fromkeys(lines)), "Fix the lines; docs/node.md lists every word."
        ) from None
    problems = list(_find_problems(configuration))
    if problems:
        raise ConfigurationError(
            "\n".join(f"{path}, line {_find_line(tree, place)}: {words}" for place, words in problems),
            "Fix the lines; docs/node.md lists every word.",
        )
    return configuration


def _find_problems(configuration: Configuration) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What each word allows by itself but not together, with its place."""
    yield from _find_listener_problems("dicom", configuration.dicom)
    if configuration.dicomweb is not None:
        yield from _find_listener_problems("dicomweb", configuration.dicomweb)
        yield from _find_secret_problems(("dicomweb", "tokens"), configuration.dicomweb.tokens)
    for caller, networks in configuration.dicom.callers.items():
        for network in networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                yield ("dicom", "callers", caller), f"{network!r} is no address or network (10.1.2.3, 10.1.2.0/24)"
    for name, destination in configuration.destinations.items():
        place = ("destinations", name)
        if isinstance(destination, DicomDestination):
            if destination.tls is not None:
                yield from _find_tls_problems((*place, "tls"), destination.tls)
                if destination.tls.clients is None:
                    yield place, "tls has no clients: the CA that signed the destination's certificate"
            elif not is_near(destination.address):
                yield place, f"{destination.address} is not loopback or private and has no tls"
        else:
            host = re.match(r"^(https?)://([^/:]+|\[[^\]]+\])", destination.url)
            if host is None:
                yield place, f"{destination.url!r} is no http or https address"
            elif host[1] == "http" and not is_near(host[2].strip("[]")):
                yield place, f"{destination.url} is not loopback or private and not https"
            if destination.token_file is not None:
                yield from _find_secret_problems((*place, "token_file"), destination.token_file)
            if destination.token_env and destination.token_env not in os.environ:
                yield (*place, "token_env"), f"the environment has no {destination.token_env}"
    names: set[str] = set()
    for index, rule in enumerate(configuration.rules):
        for name in rule.send.to:
            if name not in configuration.destinations:
                yield ("rules", index, "send"), f"no destination is called {name!r}"
        if configuration.rule_name(index) in names:
            yield ("rules", index), f"two rules are called {configuration.rule_name(index)!r}; give each a name"
        names.add(configuration.rule_name(index))


def _find_listener_problems(
    word: str, listener: DicomListener | DicomWebListener
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if listener.tls is not None:
        yield from _find_tls_problems((word, "tls"), listener.tls)
    elif not listener.plain:
        yield (word,), "no tls; where the network is trusted, write plain: true"
    elif not is_near(listener.address):
        yield (word, "address"), f"plain: true needs a loopback or private address, not {listener.address}"


def _find_tls_problems(place: tuple[str | int, ...], tls: Tls) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for file in (tls.certificate, tls.clients):
        if file is not None and not os.access(file, os.R_OK):
            yield place, f"{file} is absent or cannot be read"
    yield from _find_secret_problems((*place, "key"), tls.key)


def _find_secret_problems(place: tuple[str | int, ...], file: Path) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if not os.access(file, os.R_OK):
        yield place, f"{file} is absent or cannot be read"
    elif file.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield place, f"{file} can be read by anybody; chmod 600"


def is_near(address: str) -> bool:
    """Whether an address is loopback or private; every address at once (0.0.0.0) and unknown names are not."""
    if address == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not ip.is_unspecified and (ip.is_loopback or ip.is_private)


def _find_line(tree: yaml.Node | None, place: tuple[str | int, ...]) -> int:
    """The line of the deepest part of a place that stands in the file."""
    node, line = tree, 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                continue
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _explain(error: Any) -> str:
    word = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown word {word}"
    if error["type"] == "missing":
        return f"{word} is missing"
    got = error.get("input")
    shown = f" (got {got!r})" if isinstance(got, (str, int, float, bool)) else ""
    return f"{word}: {error['msg']}{shown}"
