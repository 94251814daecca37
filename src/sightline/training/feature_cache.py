"""What frozen stages say of images, kept in files for every training and evaluation that shows the same images again.

Ten rows of a table, five seeds each, show their networks the same pictures; frozen stages say the same of them fifty
times. One file an image, written in one step, so that trainings side by side can share a folder.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.data.views.cache import Encoder, list_framing_boxes
from sightline.data.views.frames import state_spacing
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RunError
from sightline.io.files import digest_file
from sightline.io.image import read_frame
from sightline.structures.case import Case
from sightline.structures.evidence import has_bfloat16


class FixedStages(Protocol):
    """Stages that are not trained."""

    @property
    def levels(self) -> tuple[object, ...]:
        """What is kept of them."""
        ...

    def digest(self) -> str:
        """Twelve hex digits over their weights."""
        ...


class HasFrozenStages(Protocol):
    """A trunk whose frozen stages can be asked apart from the rest."""

    @property
    def frozen_stages(self) -> FixedStages | None:
        """They, where they have a precision of their own."""
        ...

    def frozen_features(self, images: Tensor) -> Tensor:
        """Packed features [b, n] of images [b, c, h, w]."""
        ...


@runtime_checkable
class TakesFeatures(Protocol):
    """A network that takes packed features of its trunk's frozen stages wherever it takes images."""

    encoder: Encoder | None

    @property
    def trunk(self) -> HasFrozenStages:
        """The trunk."""
        ...


class FeatureCache:
    """Packed features in files, `FOLDER/DIGEST/NAME.npy`.

    Args:
        folder: shared by all trainings.
        trunk: whose frozen stages speak.
        view: how pictures are framed; another view is another folder.
    """

    def __init__(self, folder: Path, trunk: HasFrozenStages, view: View) -> None:
        assert trunk.frozen_stages is not None
        self.trunk = trunk
        device = next(iter(trunk.parameters())).device  # type: ignore[attr-defined]  # a trunk is a module
        # machines may share the folder: what one computes in float32 is not mixed with another's bfloat16
        computed_in = "" if has_bfloat16(device) else " float32"
        text = f"{trunk.frozen_stages.digest()} {view.notation()}{computed_in}"
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "about.txt"
        if not about.is_file():
            about.write_text(f"{view}\n{trunk.frozen_stages.levels}\n", encoding="utf-8")
        self.view = view
        # by the case's number, which another one may have had in another process
        self._names: dict[tuple[int, bool], tuple[Case, str]] = {}

    def name(self, case: Case, drawn: str) -> str:
        """A name for one draw of the case's picture: another one once the picture, or what frames it, has changed."""
        training = drawn != "test"
        known, name = self._names.get((id(case), training), (None, ""))
        if known is not case:
            text = f"{case.case_id} {_describe_picture(case)}"
            if boxes := list_framing_boxes(case, self.view, training=training):
                text += f" {[[float(x) for x in box] for box in boxes]}"
            name = hashlib.sha256(text.encode()).hexdigest()[:20]
            self._names[id(case), training] = case, name
        return f"{name}-{drawn.replace(' ', '')}"

    def find(self, key: str) -> NDArray[np.int16] | None:
        """What is kept under a name.

        Raises:
            RunError: a damaged file.
        """
        path = self.folder / f"{key}.npy"
        try:
            features: NDArray[np.int16] = np.load(path, allow_pickle=False)
            if not isinstance(features, np.ndarray) or features.dtype != np.int16 or features.ndim != 1:
                raise ValueError("other numbers than were kept")
        except FileNotFoundError:
            return None
        # a machine that lost its power leaves empty files
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise RunError(f"{path} is damaged ({error}).", f"Delete {self.folder}: it is computed anew.") from None
        return features

    @torch.no_grad()
    def encode(self, key: str, image: NDArray[np.float32]) -> NDArray[np.int16]:
        """Features of an image [c, h, w], kept."""
        images = torch.from_numpy(np.ascontiguousarray(image))[None].contiguous(memory_format=torch.channels_last)
        weights = next(iter(self.trunk.parameters()))  # type: ignore[attr-defined]  # a trunk is a module
        packed = self.trunk.frozen_features(images.to(weights.device))[0].cpu()
        # numpy knows no bfloat16
        features: NDArray[np.int16] = packed.view(torch.int16).numpy()
        partial = self.folder / f"{key}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            np.save(file, features, allow_pickle=False)
        partial.replace(self.folder / f"{key}.npy")
        return features


def _describe_picture(case: Case) -> str:
    """What a picture's file holds, and the shape of its pixels where the cohort corrects it."""
    facts = case.image.stat()
    text = f"{facts.st_size} {facts.st_mtime_ns}"
    if facts.st_mtime_ns % 10**9 == 0:
        # out of an archive, which keeps whole seconds: another picture of this size may have the same time
        text += f" {digest_file(case.image)}"
    if case.spacing_mm is not None:
        source = read_frame(case.image)
        stated = state_spacing(source, case)
        if stated.aspect != source.aspect:
            text += f" aspect {stated.aspect!r}"
    return text


def keep_features(network: nn.Module, folder: Path | None, view: View | VolumeView) -> None:
    """Let a network's frozen stages be asked once an image, where a folder is given and it has such stages."""
    if folder is None or not isinstance(view, View) or not isinstance(network, TakesFeatures):
        return
    if network.trunk.frozen_stages is not None and view.draws:
        network.encoder = FeatureCache(folder, network.trunk, view)


def find_encoder(network: nn.Module) -> Encoder | None:
    """What keeps features for a network, if anything does."""
    return network.encoder if isinstance(network, TakesFeatures) else None
