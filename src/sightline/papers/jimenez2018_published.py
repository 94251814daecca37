"""The values Jimenez-Sanchez et al. 2018 print: provenance beside our rows, never asserted.

F1 of Table II, and of Table III where the text holds the cell and the table agrees with itself: the averages for three
classes do not follow from their own classes and are left out, as are the six-class cells that the text lost. "mAP" is
their mean share of images whose IoU exceeds .1, .25, .5, .75 and .9 (Tables IV and V).
"""

from __future__ import annotations

from sightline.lab.table import Published

Cells = dict[str, dict[str, Published]]
PRINTED_MAP = "printed mAP (share of images above each IoU)"
GROUPS = ("A1", "A2", "A3", "B1", "B2", "B3")


def _f1(values: dict[str, float], average: float | None = None) -> dict[str, Published]:
    cells = {f"image-wise F1 of {name}, test": Published(value) for name, value in values.items()}
    if average is not None:
        cells["image-wise F1 weighted by support, test"] = Published(average)
    return cells


def _two(fracture: float) -> dict[str, Published]:
    return _f1({"fracture": fracture})


def _three(a: float, b: float, normal: float, average: float | None = None) -> dict[str, Published]:
    return _f1({"A": a, "B": b, "normal": normal}, average)


def _six(values: tuple[float, ...], average: float) -> dict[str, Published]:
    return _f1(dict(zip(GROUPS, values, strict=True)), average)


def _map(value: float) -> dict[str, Published]:
    return {
        f"{PRINTED_MAP}, test": Published(value),
        f"{PRINTED_MAP}, boxes as the recipe says, test": Published(value),
    }


TABLE2: Cells = {
    "2c LBM": _two(0.83),
    "2c a-STN": _two(0.92),
    "2c aff-STN": _two(0.90),
    "2c Sup+UBM": _two(0.93),
    "2c UBM": _two(0.94),
    "3c LBM": _three(0.76, 0.81, 0.89, 0.82),
    "3c a-STN": _three(0.74, 0.82, 0.88, 0.82),
    "3c aff-STN": _three(0.80, 0.87, 0.86, 0.84),
    "3c Sup+UBM": _three(0.81, 0.83, 0.91, 0.85),
    "3c UBM": _three(0.85, 0.88, 0.88, 0.87),
    "6c LBM CE": _six((0.26, 0.73, 0.00, 0.40, 0.35, 0.34), 0.41),
    "6c LBM WCE": _six((0.22, 0.76, 0.00, 0.56, 0.54, 0.53), 0.49),
    "6c a-STN": _six((0.07, 0.71, 0.00, 0.32, 0.36, 0.16), 0.32),
    "6c aff-STN": _six((0.33, 0.75, 0.00, 0.50, 0.47, 0.43), 0.48),
    "6c Sup+UBM CE": _six((0.50, 0.71, 0.00, 0.63, 0.40, 0.63), 0.55),
    "6c Sup+UBM WCE": _six((0.47, 0.76, 0.00, 0.55, 0.49, 0.38), 0.51),
    "6c UBM CE": _six((0.19, 0.76, 0.33, 0.55, 0.47, 0.47), 0.48),
    "6c UBM WCE": _six((0.18, 0.71, 0.00, 0.52, 0.45, 0.24), 0.40),
    # section IV-1, said in the text
    "2c sup. localiser": _map(0.71),
    "3c sup. localiser": _map(0.71),
    "6c sup. localiser": _map(0.71),
}

TABLE3: Cells = {
    "2c STL 0": {**_two(0.84), **_map(0.28)},
    "2c STL 0.3": {**_two(0.89), **_map(0.26)},
    "2c STL 0.6": {**_two(0.90), **_map(0.27)},
    "2c STL 1": {**_two(0.44), **_map(0.19)},
    "3c STL 0": {**_three(0.74, 0.87, 0.80), **_map(0.27)},
    "3c STL 0.3": {**_three(0.78, 0.82, 0.85), **_map(0.30)},
    "3c STL 0.6": {**_three(0.74, 0.82, 0.88), **_map(0.33)},
    "3c STL 1": {**_three(0.48, 0.03, 0.00), **_map(0.24)},
    "6c STL 0 CE": {**_f1({}, 0.24), **_map(0.26)},
    "6c STL 0 WCE": {**_f1({}, 0.35), **_map(0.23)},
    "6c STL 0.3 CE": _map(0.32),
    "6c STL 0.3 WCE": _map(0.32),
    "6c STL 0.6 CE": _map(0.35),
    "6c STL 0.6 WCE": _map(0.35),
    "6c STL 1 CE": {**_f1({}, 0.05), **_map(0.23)},
    "6c STL 1 WCE": {**_f1({}, 0.09), **_map(0.28)},
}

_POOLS = ("MAX", "LSE", "AVG")
_TABLE5_F1 = {
    "LBM": ((0.68, 0.87, 0.89), (0.63, 0.63, 0.78), (0.15, 0.31, 0.33)),
    "a-STN": ((0.84, 0.84, 0.85), (0.78, 0.76, 0.73), (0.26, 0.37, 0.37)),
    "aff-STN": ((0.84, 0.85, 0.84), (0.74, 0.76, 0.79), (0.27, 0.36, 0.36)),
    "UBM": ((0.39, 0.88, 0.93), (0.36, 0.81, 0.84), (0.18, 0.36, 0.46)),
}
# the transformers' 0.32 in every cell is what an unmoved window gets
_TABLE5_MAP = {
    "LBM": ((0.23, 0.23, 0.40), (0.31, 0.26, 0.47), (0.23, 0.23, 0.37)),
    "a-STN": ((0.32, 0.32, 0.32),) * 3,
    "aff-STN": ((0.32, 0.32, 0.32),) * 3,
}


def _table5() -> Cells:
    cells: Cells = {}
    for method, scenarios in _TABLE5_F1.items():
        for task, values in zip(("2c", "3c", "6c"), scenarios, strict=True):
            for pool, value in zip(_POOLS, values, strict=True):
                cells[f"{task} {method} {pool}"] = _two(value) if task == "2c" else _f1({}, value)
    for method, scenarios in _TABLE5_MAP.items():
        for task, values in zip(("2c", "3c", "6c"), scenarios, strict=True):
            for pool, value in zip(_POOLS, values, strict=True):
                cells[f"{task} {method} {pool}"] |= _map(value)
    return cells


TABLE5: Cells = _table5()
