"""Which pictures a run is asked about together: some at a time, or whole studies where it has one answer for each."""

from support.workstation import small_cohort

from sightline.web.workstation.pictures.map_worker import AT_ONCE, list_parts


def test_studies_are_asked_whole_where_their_answer_is_one(tmp_path):
    cohort = small_cohort(tmp_path, studies=3)
    every = {case.case_id: "key" for case in cohort}
    apart = list_parts(cohort, every, whole_studies=False)
    assert [len(part) for part in apart] == [AT_ONCE, 2]
    whole = list_parts(cohort, every, whole_studies=True)
    assert [{case.study_id for case in part} for part in whole] == [{"S00"}, {"S01"}, {"S02"}]
    # half of a study is there already: its answer needs all of it
    left = list_parts(cohort, {"S01-1": "key"}, whole_studies=True)
    assert [[case.case_id for case in part] for part in left] == [["S01-0", "S01-1"]]
    assert list_parts(cohort, {}, whole_studies=True) == list_parts(cohort, {}, whole_studies=False) == []
