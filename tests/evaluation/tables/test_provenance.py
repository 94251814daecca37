"""What a table says of the processor time of its rows, from histories written by hand."""

import csv

from support.cohorts import tiny_recipe

from sightline.evaluation.tables.provenance import write_training_time
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult


def trained(folder, costs, column="cpu_seconds"):
    folder.mkdir()
    lines = ["epoch,images," + column, *(f"{n},10,{cost}" for n, cost in enumerate(costs, start=1))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_processor_time_of_each_row_beside_its_reference(tmp_path, tiny_cohort):
    rows = (
        Row("plain", tiny_recipe()),
        Row("guided", tiny_recipe(), "plain"),
        Row("older", tiny_recipe(), "plain"),
        Row("put together", tiny_recipe(), "older"),
    )
    folders = {
        "plain": (trained(tmp_path / "a", [1.0, 3.0]), trained(tmp_path / "b", [2.0, 2.0])),
        "guided": (trained(tmp_path / "c", [2.0, 2.25]),),
        "older": (trained(tmp_path / "d", [9.0], "seconds"),),
        "put together": (tmp_path / "nothing",),
    }
    results = tuple(RowResult(row, {}, folders[row.name]) for row in rows)
    write_training_time(TableResult(Table("t", "t", rows), tiny_cohort, (0, 1), results), tmp_path)
    with (tmp_path / "training_time.csv").open(newline="") as file:
        found = {line["row"]: line for line in csv.DictReader(file)}
    plain, guided = found["plain"], found["guided"]
    assert (plain["trainings"], plain["images"], plain["cpu_seconds"]) == ("2", "20", "4.0")
    assert (plain["least"], plain["most"], plain["ratio"]) == ("4.0", "4.0", "")
    assert (guided["cpu_seconds"], guided["reference"], guided["ratio"]) == ("4.2", "plain", "1.062")
    for name in ("older", "put together"):
        assert (found[name]["trainings"], found[name]["cpu_seconds"], found[name]["ratio"]) == ("0", "", "")
