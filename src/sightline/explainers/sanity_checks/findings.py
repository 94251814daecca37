"""What pre-flight checks find, in words for whoever reads the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Kind = Literal["blank", "image", "weights", "class", "activations", "plain gradient", "traces", "mode"]
Severity = Literal["ok", "note", "wrong"]

_MARKS: dict[Severity, str] = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@dataclass(frozen=True)
class CheckResult:
    """The answer to one question about a map.

    Attributes:
        kind: which question.
        severity: `ok`; `note`: know this when you read the map; `wrong`: the map does not say what it seems to say.
        message: the answer, with its numbers.
        remedy: what to do; empty when nothing is needed.
        numbers: what the answer rests on. Correlations are Pearson's, unless a name says rank.
    """

    kind: Kind
    severity: Severity
    message: str
    remedy: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line, with the remedy after it."""
        return f"{_MARKS[self.severity]} {self.kind}: {self.message}" + (f" {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Preflight:
    """All findings, and the maps they were made on.

    Attributes:
        findings: one a question, in the order in which they are best read.
        maps: [b, n, *m], as the explainer made them.
        classes: the n classes looked at.
    """

    findings: tuple[CheckResult, ...]
    maps: Tensor
    classes: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Nothing is wrong. Notes pass."""
        return all(finding.severity != "wrong" for finding in self.findings)

    def finding(self, kind: Kind) -> CheckResult:
        """The finding of a kind.

        Raises:
            KeyError: this question was not asked.
        """
        found = {finding.kind: finding for finding in self.findings}
        return found[kind]

    def __str__(self) -> str:
        """A line a finding."""
        return "\n".join(map(str, self.findings))


# Deconvolution without max-pooling: 1.000; on EfficientNet (gates let the image in): 0.9999. The plain gradient of an
# EfficientNet with random weights, which is nearly linear: 0.988 to 0.996.
SAME_FOR_ALL_IMAGES = 0.999
NEARLY_SAME_FOR_ALL_IMAGES = 0.97

# With all weights shuffled, a detector of edges keeps 1.000. What survives in other maps is the network's grid: up to
# 0.85 for absolute gradients of ResNet-18.
SAME_WITHOUT_WEIGHTS = 0.95
NEARLY_SAME_WITHOUT_WEIGHTS = 0.8
# With the last layer alone shuffled: guided back-propagation 0.98 to 1.00; plain gradients up to 0.84.
NEARLY_SAME_WITHOUT_HEAD = 0.97

# Guided back-propagation for two classes: 0.98 on ResNet-18, 0.999 on EfficientNet; plain absolute gradients 0.82.
SAME_FOR_ALL_CLASSES = 0.9999
NEARLY_SAME_FOR_ALL_CLASSES = 0.95

# The plain gradient computed twice: 1.000000. Guided and plain gradients that differ: up to 0.94, and 0.996 in ranks.
PLAIN_GRADIENT = 0.999
PLAIN_GRADIENT_IN_RANKS = 0.9995
