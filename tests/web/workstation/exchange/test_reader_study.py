"""From reads in a store to the numbers of Obuchowski-Rockette and Dorfman-Berbaum-Metz, in one command."""

import json

import pytest
from sqlalchemy import select
from support.workstation import CLASSES, open_studio, small_cohort

from sightline.cli.main import main
from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import RunError
from sightline.metrics.readers.anova import analyse_readers
from sightline.metrics.readers.pseudovalues import analyse_pseudovalues
from sightline.metrics.readers.study import ReaderStudy
from sightline.web.workstation.exchange.reader_study import format_imrmc, read_stored_study
from sightline.web.workstation.exchange.readings import list_finished_reads
from sightline.web.workstation.reading.reader_study import CONDITIONS, deal_study
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.store.tables import image, map_, read, study

# two accounts, 36 reads over the page's interface
pytestmark = pytest.mark.slow

# confidence of "fracture" (negative: of "no fracture") of each reader, condition and study S00 to S05; odd ones are
# fractured; chosen so that advice helps and no AUC is 1
SCORES = {
    ("ada", "unaided"): (-80, 60, 40, -20, -70, 30),
    ("ada", "answer"): (-90, 70, -10, 20, -60, -20),
    ("ada", "answer and map"): (-90, 90, 30, 20, -80, 60),
    ("ben dr", "unaided"): (-40, 20, -60, -50, 30, 70),
    ("ben dr", "answer"): (-50, 80, 85, 10, 40, 30),
    ("ben dr", "answer and map"): (-70, 80, -50, -60, -20, 90),
}


@pytest.fixture(scope="module")
def keep(tmp_path_factory):
    """Six studies, two readers, three conditions; all but one read are finished."""
    place = tmp_path_factory.mktemp("study")
    cohort = small_cohort(place / "cohort", studies=6, views=1)
    write_cohort(cohort, place / "cohort")
    studio = open_studio(place, cohort)
    readers = [studio.add("ada"), studio.add("ben dr")]
    spec = {"ask": {"label": True, "confidence": True}, "study_mode": True, "days_between": 0.0}
    with studio.desk.database.writing() as connection:
        task = add_task(connection, "with AI", "mark", build_spec(spec, CLASSES), who="test")
        for row in connection.execute(select(image.c.key)).all():
            said = {"run": "r", "image": row[0], "file": "", "classes": json.dumps(CLASSES), "shape": "", "frame": "",
                    "ranges": "", "probabilities": "[0.4, 0.6]"}  # fmt: skip
            connection.execute(map_.insert().values(**said))
        deal_study(connection, task, readers, wrong_share=0.0, run=None, seed=0, who="test")
    for name in ("ada", "ben dr"):
        with studio.desk.database.reading() as connection:
            rows = connection.execute(
                select(read.c.id, read.c.aid, study.c.study_id)
                .join(study, study.c.key == read.c.study)
                .where(read.c.reader == studio.ids[name])
                .order_by(read.c["pass"], read.c.ordinal)
            ).all()
        for key, aid, case in rows:
            score = SCORES[name, json.loads(aid)["condition"]][int(case[1:])]
            done = studio.finish(name, key, label=CLASSES[score > 0], confidence=abs(score))
            assert done.status_code == 200, done.text
    yield place / "keep", studio
    studio.desk.close()


def said_study():
    """What the readers said, put together by hand."""
    rows = [
        (reader, f"S{i:02d}", condition.replace(" ", "_"), float(score))
        for (reader, condition), scores in SCORES.items()
        for i, score in enumerate(scores)
    ]
    return ReaderStudy.from_calls(rows, {f"S{i:02d}": bool(i % 2) for i in range(6)})


def test_the_command_prints_the_analysis_of_what_was_read(keep, capsys):
    with pytest.raises(SystemExit) as end:
        main(["mrmc", str(keep[0])])
    assert end.value.code == 0
    text = capsys.readouterr().out
    by_hand = said_study()
    found, dbm = analyse_readers(by_hand), analyse_pseudovalues(by_hand)
    assert "2 readers, 6 cases, 3 positive" in text and f"Obuchowski-Rockette: {found.text()}" in text
    assert f"F({dbm.df[0]:g}, {dbm.df[1]:.1f}) = {dbm.statistic:.3f}" in text


def test_the_exported_file_gives_the_same_study(keep, tmp_path):
    stored, notes = read_stored_study(keep[0])
    assert (
        notes == ()
        and stored.positive.tolist() == [False, True] * 3
        and set(stored.modalities) == {name.replace(" ", "_") for name in CONDITIONS}
    )
    with keep[1].desk.database.reading() as connection:
        text = format_imrmc(
            list_finished_reads(connection), {f"S{i:02d}": CLASSES[i % 2] for i in range(6)}, CLASSES[1]
        )
    again = ReaderStudy.parse(text, tmp_path / "study.imrmc")
    # iMRMC knows no spaces in names
    assert set(again.readers) == {"ada", "bendr"}
    assert analyse_readers(again).text() == analyse_readers(stored).text()
    other, _ = read_stored_study(keep[0], positive=CLASSES[0])
    assert (other.positive == ~stored.positive).all() and (other.ratings == -stored.ratings).all()


def test_unfinished_studies_are_left_out_and_what_is_no_reader_study_is_said(keep):
    with pytest.raises(RunError, match="no class 'x'"):
        read_stored_study(keep[0], positive="x")
    with pytest.raises(RunError, match="finished reads of with AI"):
        read_stored_study(keep[0], task="other")
    head = keep[0].parent / "cohort" / "cohort.json"
    head.rename(head.with_suffix(".gone"))
    with pytest.raises(RunError, match="which class is looked for"):
        read_stored_study(keep[0])
    assert read_stored_study(keep[0], positive=CLASSES[1])[0].positive.tolist() == [False, True] * 3
    head.with_suffix(".gone").rename(head)
    with keep[1].desk.database.writing() as connection:
        of_s05 = select(study.c.key).where(study.c.study_id == "S05").scalar_subquery()
        one = connection.execute(select(read.c.id).where(read.c.study == of_s05)).scalars().first()
        connection.execute(read.update().where(read.c.id == one).values(state="open"))
    found, notes = read_stored_study(keep[0])
    assert found.cases == ("S00", "S01", "S02", "S03", "S04") and notes[0].startswith("1 of 6 studies are left out")
