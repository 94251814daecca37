"""The values Liao et al. 2022 print, in percent: provenance beside our rows, never asserted.

Study-wise and image-wise accuracy, mean and standard deviation over five runs. External cells of Table IV at
lambda = 0.5 are shifted in the paper's text and left out, as are cells of supplements that the text does not hold.
"""

from __future__ import annotations

from sightline.lab.table import Published

Cells = dict[str, dict[str, Published]]


def _cell(image: tuple[float, float], study: tuple[float, float], where: str = "test") -> dict[str, Published]:
    return {
        f"image-wise accuracy, {where}": Published(*image),
        f"study-wise accuracy, {where}": Published(*study),
    }


def _grid(
    weight: float, image: list[tuple[float, float]], study: list[tuple[float, float]], where: str = "test"
) -> Cells:
    words = ("scribble", "bbox", "segm")
    return {f"guided {weight:g} {w}": _cell(i, s, where) for w, i, s in zip(words, image, study, strict=True)}


def _join(*parts: Cells) -> Cells:
    joined: Cells = {}
    for part in parts:
        for name, cells in part.items():
            joined[name] = {**joined.get(name, {}), **cells}
    return joined


TABLE3_S512: Cells = _join(
    {
        "baseline": _cell((74.1, 1.3), (76.4, 0.9)),
        "L1 1e-08": _cell((76.4, 2.0), (80.0, 2.4)),
        "L2 1e-08": _cell((76.7, 2.1), (78.4, 3.4)),
        "residual attention": _cell((75.3, 3.4), (78.8, 2.4)),
        "self attention": _cell((75.5, 1.7), (79.2, 1.8)),
        "pyramid attention": _cell((75.7, 0.6), (79.2, 2.7)),
        "guided 0": _cell((76.1, 0.8), (78.8, 2.2)),
    },
    _grid(0.01, [(76.4, 1.7), (76.5, 1.9), (75.3, 1.9)], [(80.2, 0.8), (79.8, 1.8), (80.4, 2.2)]),
    _grid(0.1, [(77.5, 1.7), (77.3, 1.4), (78.8, 1.2)], [(83.0, 2.0), (81.6, 1.8), (82.6, 3.0)]),
    _grid(1, [(78.8, 1.6), (78.5, 1.4), (78.7, 0.9)], [(83.2, 2.2), (84.2, 0.8), (83.0, 2.0)]),
    _grid(5, [(76.4, 2.3), (76.9, 1.3), (77.4, 2.0)], [(80.0, 4.9), (81.8, 1.3), (81.2, 2.4)]),
)

TABLE3_S768: Cells = _join(
    {
        "baseline": _cell((75.5, 1.2), (79.8, 2.1)),
        "L1 1e-08": _cell((76.1, 4.0), (80.0, 4.0)),
        "L2 1e-08": _cell((78.1, 2.0), (82.0, 2.5)),
        "residual attention": _cell((75.6, 1.7), (78.6, 2.9)),
        "self attention": _cell((78.1, 1.6), (81.6, 2.5)),
        "pyramid attention": _cell((73.7, 1.5), (78.2, 3.6)),
        "guided 0": _cell((78.1, 4.2), (81.6, 3.8)),
    },
    _grid(0.01, [(78.7, 1.2), (77.6, 1.5), (79.1, 0.5)], [(85.0, 1.4), (81.2, 2.4), (83.4, 1.5)]),
    _grid(0.1, [(79.3, 1.2), (79.7, 1.6), (80.6, 1.2)], [(83.4, 2.0), (84.4, 2.1), (84.0, 1.6)]),
    _grid(1, [(79.1, 0.9), (79.0, 1.3), (78.8, 1.7)], [(82.6, 1.5), (81.2, 1.1), (82.2, 1.5)]),
    _grid(5, [(74.9, 2.3), (78.0, 1.2), (77.1, 1.4)], [(78.8, 2.2), (80.8, 3.0), (79.8, 2.4)]),
)

TABLE4: Cells = _join(
    {
        "baseline": _cell((64.5, 1.7), (69.0, 2.8)),
        "L1 1e-09": _cell((62.3, 9.5), (67.0, 11.9)),
        "L2 1e-08": _cell((67.0, 5.5), (72.8, 6.7)),
        "residual attention": _cell((62.5, 1.6), (65.0, 1.2)),
        "self attention": _cell((68.9, 2.5), (74.6, 3.1)),
        "pyramid attention": _cell((55.4, 6.2), (59.4, 9.6)),
        "guided 0": _cell((65.2, 4.0), (70.4, 5.9)),
    },
    _grid(0.1, [(70.7, 1.6), (70.7, 1.8), (73.3, 2.8)], [(76.0, 2.2), (77.0, 3.7), (80.6, 3.8)]),
    _grid(0.5, [(73.3, 2.6), (72.4, 2.2), (73.7, 2.8)], [(80.4, 3.9), (79.6, 2.0), (79.4, 2.5)]),
    _grid(1, [(70.3, 3.3), (71.3, 2.1), (73.0, 1.6)], [(79.2, 4.0), (78.4, 3.1), (78.0, 1.6)]),
    {
        "baseline": _cell((68.7, 2.7), (75.4, 2.5), "external"),
        "L1 1e-09": _cell((70.2, 6.0), (78.1, 7.6), "external"),
        "L2 1e-08": _cell((74.5, 2.0), (81.7, 4.3), "external"),
        "residual attention": _cell((68.7, 1.4), (75.5, 1.0), "external"),
        "self attention": _cell((70.4, 2.0), (78.6, 1.8), "external"),
        "pyramid attention": _cell((61.5, 7.2), (67.6, 7.8), "external"),
        "guided 0": _cell((73.5, 4.1), (80.5, 4.6), "external"),
    },
    _grid(0.1, [(79.6, 1.2), (77.5, 3.5), (79.8, 1.6)], [(86.4, 1.9), (85.6, 1.9), (86.4, 2.4)], "external"),
    _grid(1, [(77.1, 2.1), (78.7, 1.7), (80.1, 2.2)], [(84.5, 1.5), (84.6, 1.4), (86.0, 1.6)], "external"),
)

SUPPLEMENT1: Cells = {}
SUPPLEMENT2: Cells = {}

# README of the released code: top-1 at epoch 95, one seed
_CUB = {
    "original": (26.0, 52.2, 65.2, 72.9),
    "guided 0.001": (50.9, 65.8, 71.0, 76.1),
    "guided 0.01": (52.0, 65.6, 70.8, 75.3),
    "guided 0.1": (50.0, 65.7, 71.5, 75.7),
}
CUB200: Cells = {
    f"n={n} {name}": {"image-wise accuracy, test": Published(values[i])}
    for name, values in _CUB.items()
    for i, n in enumerate((5, 10, 15, 20))
}
