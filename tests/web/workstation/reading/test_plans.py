"""Plans deal each study as often as they say, in orders that hold what they promise."""

import pytest
from sqlalchemy import select
from support.workstation import open_studio, small_cohort

from sightline.errors import SightlineError
from sightline.web.workstation.reading.commands import plan_reads, read_listed_studies
from sightline.web.workstation.reading.plans import Plan, deal, order_studies
from sightline.web.workstation.reading.reader_study import CONDITIONS, SQUARE
from sightline.web.workstation.reading.tasks import TaskRefused
from sightline.web.workstation.reading.worth import compute_entropy, compute_margin, measure_disagreement
from sightline.web.workstation.store.tables import read, study, task

KEYS = [f"k{n}" for n in range(23)]


def test_three_readers_two_passes_are_six_reads_of_each_study(studio):
    studio.add("cyd")
    studio.plan("six", ["ada", "ben", "cyd"], passes=2, order="random")
    counts = {}
    for name in ("ada", "ben", "cyd"):
        rows = studio.reads(name, task=studio.tasks["six"])
        assert [row["pass"] for row in rows] == [1] * 4 + [2] * 4
        for row in rows:
            counts[row["study"]] = counts.get(row["study"], 0) + 1
    assert set(counts.values()) == {6}
    # dealt again: nothing is doubled
    with studio.desk.database.writing() as connection:
        plan = Plan([studio.ids["ada"]], 2, "random")
        assert deal(connection, studio.tasks["six"], plan, who="x") == 0


def test_warm_up_comes_first_and_again_later(studio):
    studio.plan("warm", ["ada", "ben"], warm_up=2)
    rows = {name: studio.reads(name, task=studio.tasks["warm"]) for name in ("ada", "ben")}
    for name in rows:
        assert [row["warm_up"] for row in rows[name]] == [True, True, False, False, False, False]
        assert {row["study"] for row in rows[name][:2]} <= {row["study"] for row in rows[name][2:]}
    assert [r["study"] for r in rows["ada"][:2]] == [r["study"] for r in rows["ben"][:2]]


def test_random_orders_differ_by_reader_and_pass_and_come_again_by_seed():
    orders = [tuple(k for k, _ in order_studies(KEYS, "random", s, r, p)) for s in (0, 1) for r in "ab" for p in (1, 2)]
    assert len(set(orders)) == 8
    assert all(sorted(order) == sorted(KEYS) for order in orders)
    assert order_studies(KEYS, "random", 0, "a", 1) == order_studies(KEYS, "random", 0, "a", 1)
    assert [k for k, _ in order_studies(KEYS, "given", 0, "a", 1)] == KEYS


def test_the_active_order_takes_the_worthiest_and_every_fifth_at_random():
    worth = {key: float(n % 10) for n, key in enumerate(KEYS)}
    dealt = order_studies(KEYS, "active", 0, "a", 1, worth)
    assert sorted(key for key, _ in dealt) == sorted(KEYS)
    assert [n for n, (_, drawn) in enumerate(dealt) if drawn] == [4, 9, 14, 19]
    chosen = [worth[key] for key, drawn in dealt if not drawn]
    assert chosen == sorted(chosen, reverse=True)


def test_worth_is_what_it_says():
    assert compute_entropy([1.0, 0.0]) == 0.0
    assert compute_margin([0.5, 0.5]) == 1.0
    assert measure_disagreement([[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(0.6931, abs=1e-4)


def test_a_latin_square_puts_each_condition_in_each_place_once():
    for place in range(3):
        assert {row[place] for row in SQUARE} == {0, 1, 2}
    assert all(sorted(row) == [0, 1, 2] for row in SQUARE)
    assert len(CONDITIONS) == 3


@pytest.mark.parametrize(
    "plan",
    [Plan([]), Plan(["nobody"]), Plan(["ada"], passes=0), Plan(["ada"], order="x"), Plan(["ada"], studies=["x"])],
)
def test_plans_that_mean_nothing_are_refused(studio, plan):
    readers = [studio.ids.get(name, name) for name in plan.readers]
    whole = Plan(readers, plan.passes, plan.order, plan.seed, plan.warm_up, plan.studies)
    with studio.desk.database.reading() as connection, pytest.raises(TaskRefused):
        deal(connection, studio.tasks["first"], whole, who="x")


def test_adopted_studies_join_the_queue_of_whoever_works_alone(tmp_path):
    open_studio(tmp_path, small_cohort(tmp_path / "cohort", studies=2), alone=True).desk.close()
    studio = open_studio(tmp_path, small_cohort(tmp_path / "cohort", studies=3), alone=True, adopt=True)
    with studio.desk.database.reading() as connection:
        from sightline.web.workstation.reading.worklist import count_reads

        assert count_reads(connection, studio.desk.alone_person().id, None)["open"] == 3
    studio.desk.close()


def test_a_list_is_dealt_in_its_order_and_knows_what_was_random(studio, tmp_path):
    table = tmp_path / "suggestions.csv"
    rows = ["rank,case_id,study_id,chosen_by", "1,S02-0,S02,mixed", "2,S00-1,S00,random", "3,S02-1,S02,random"]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    keep, plan = studio.desk.options.keep, Plan(("ada", "ben"), order="listed")
    assert plan_reads(keep, None, "listed", {}, plan, None, table) == 4
    with studio.desk.database.reading() as connection:
        studio.tasks["listed"] = connection.execute(select(task.c.id).where(task.c.name == "listed")).scalar_one()
        assert [drawn for _, drawn in read_listed_studies(connection, table)] == [False, True]
        flagged = select(read.c.random_draw).where(read.c.task == studio.tasks["listed"]).order_by(read.c.ordinal)
        assert sorted(connection.execute(flagged).scalars()) == [False, False, True, True]
        of_study = dict(connection.execute(select(study.c.key, study.c.study_id)).tuples().all())
        order = select(read.c.study).where(read.c.task == studio.tasks["listed"], read.c.reader == studio.ids["ada"])
        dealt = [of_study[key] for key in connection.execute(order.order_by(read.c.ordinal)).scalars()]
    assert dealt == ["S02", "S00"]
    table.write_text("study_id\nS77\n", encoding="utf-8")
    with pytest.raises(SightlineError, match="S77"):
        plan_reads(keep, None, "listed", {}, plan, None, table)
    with pytest.raises(TaskRefused, match="go together"):
        plan_reads(keep, None, "listed", {}, plan, None, None)
