"""Three reporting guidelines of studies with artificial intelligence: their items, in short words of our own, and which
facts of a run answer them.

The numbers are the guidelines' own; the words are not. Cite and read the guideline itself:
CLAIM 2024 (Tejani et al., Radiol Artif Intell 2024;6:e240300), TRIPOD+AI (Collins et al., BMJ 2024;385:e078378),
STARD-AI (Sounderajah et al., Nat Med 2025;31:3283-3289).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GuidelineItem:
    """One item of a guideline.

    Attributes:
        number: as the guideline counts, e.g. `12c`.
        section: where it stands.
        words: what is asked, in short.
        facts: names of the groups of facts (`facts.GROUPS`) that answer it; empty: a run cannot know.
        lacks: what its author must add to them; empty: they answer the item.
    """

    number: str
    section: str
    words: str
    facts: tuple[str, ...] = ()
    lacks: str = ""


@dataclass(frozen=True)
class Guideline:
    """A guideline.

    Attributes:
        name: e.g. `CLAIM`.
        title: with its year.
        citation: where it was published.
        items: in its order.
    """

    name: str
    title: str
    citation: str
    items: tuple[GuidelineItem, ...]


def _build_items(section: str, *rows: tuple[str, ...]) -> tuple[GuidelineItem, ...]:
    """Items of a section; a row is number, words, fact groups parted by blanks, what is lacking."""
    return tuple(
        GuidelineItem(number, section, words, tuple(rest[0].split()) if rest else (), rest[1] if len(rest) > 1 else "")
        for number, words, *rest in rows
    )


CLAIM = Guideline(
    "CLAIM",
    "CLAIM 2024",
    "Tejani AS et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update. Radiol Artif "
    "Intell 2024;6(4):e240300. doi:10.1148/ryai.240300",
    _build_items(
        "Title and abstract",
        ("1", "title names AI and its kind", "technology", "the title"),
        ("2", "structured abstract"),
    )
    + _build_items("Introduction", ("3", "background, intended use, clinical role"), ("4", "aims and hypotheses"))
    + _build_items("Study design", ("5", "prospective or retrospective"), ("6", "goal of the study"))
    + _build_items(
        "Data",
        ("7", "sources of data", "source", "places and dates"),
        ("8", "who was included and excluded, and why"),
        ("9", "preprocessing", "view"),
        ("10", "how parts of the data were selected", "subset", "why"),
        ("11", "de-identification"),
        ("12", "missing data"),
        ("13", "acquisition protocol"),
    )
    + _build_items(
        "Reference standard",
        ("14", "how the reference standard was obtained", "classes", "how and by whom it was set"),
        ("15", "why this reference standard"),
        ("16", "who annotated, with what qualification"),
        ("17", "how test cases were annotated"),
        ("18", "agreement within and between annotators"),
    )
    + _build_items(
        "Partitions and test data",
        ("19", "how data were assigned to partitions", "split counts imbalance"),
        ("20", "at which level partitions are disjoint", "split patients"),
        ("21", "intended size of the test set", "tested", "how the size was arrived at"),
    )
    + _build_items(
        "Model and training",
        ("22", "the model, to be built again", "model classes"),
        ("23", "software with versions", "software"),
        ("24", "initial parameters", "initial"),
        ("25", "how it was trained", "training view"),
        ("26", "how the final model was selected", "selection"),
        ("27", "how models were combined", "parts"),
    )
    + _build_items(
        "Evaluation",
        ("28", "measures of performance", "performance", "why these"),
        ("29", "uncertainty and significance", "intervals"),
        ("30", "robustness and sensitivity analyses", "robustness"),
        ("31", "explainability, and how it was checked", "maps"),
        ("32", "evaluation on internal data", "internal"),
        ("33", "testing on external data", "external", "that these cases are of another site"),
        ("34", "registration of a trial"),
    )
    + _build_items(
        "Results",
        ("35", "numbers included and excluded", "counts", "numbers excluded, flow chart"),
        ("36", "characteristics of the cases of each partition", "counts", "age, sex, disease"),
        ("37", "performance on every partition", "performance validation", "on training cases"),
        ("38", "diagnostic accuracy with precision", "performance points"),
        ("39", "analysis of errors", "crosstab", "what the wrong cases have in common"),
    )
    + _build_items("Discussion", ("40", "limitations"), ("41", "implications for practice"))
    + _build_items(
        "Other",
        ("42", "full protocol, technical details", "command", "the protocol"),
        ("43", "availability of software, model and data", "code licence", "where they can be had"),
        ("44", "funding and its role"),
    ),
)

TRIPOD_AI = Guideline(
    "TRIPOD+AI",
    "TRIPOD+AI (2024)",
    "Collins GS et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use "
    "regression or machine learning methods. BMJ 2024;385:e078378. doi:10.1136/bmj-2023-078378",
    _build_items("Title and abstract", ("1", "title: model, population, outcome"), ("2", "abstract"))
    + _build_items(
        "Introduction",
        ("3a", "context in care, and why this model"),
        ("3b", "population, purpose, users"),
        ("3c", "known inequalities of health"),
        ("4", "objectives"),
    )
    + _build_items(
        "Methods",
        ("5a", "sources of development and evaluation data", "source tested", "why these, and whom they represent"),
        ("5b", "dates of the data"),
        ("6a", "setting, number of centres"),
        ("6b", "eligibility"),
        ("6c", "treatments"),
        ("7", "preparation and checks of data", "view", "checks, and whether alike in all groups"),
        ("8a", "the outcome, and how it was assessed", "classes", "how and when it was assessed"),
        ("8b", "who assessed the outcome"),
        ("8c", "blinding of the assessment"),
        ("9a", "which predictors were chosen, and how", "view", "why pictures alone"),
        ("9b", "definition of all predictors", "view", "how and when the pictures were taken"),
        ("9c", "who assessed predictors"),
        ("10", "sample size", "counts tested", "how it was arrived at"),
        ("11", "missing data"),
        ("12a", "how data were used and parted", "split counts"),
        ("12b", "how predictors were handled", "view"),
        ("12c", "kind of model, all steps of building, internal validation", "model training selection"),
        ("12d", "heterogeneity between clusters", "subgroups", "clusters such as hospitals"),
        ("12e", "measures and plots of performance", "performance calibration benefit", "why these"),
        ("12f", "updating of the model, e.g. recalibration", "recalibration"),
        ("12g", "how predictions were computed", "command code"),
        ("13", "class imbalance", "imbalance recalibration"),
        ("14", "fairness: what was done", "subgroups", "which groups matter, and why"),
        ("15", "output of the model, thresholds and how found", "classes thresholds", "why these thresholds"),
        ("16", "differences of development and evaluation data", "external", "setting, eligibility, outcome"),
        ("17", "ethics approval and consent"),
    )
    + _build_items(
        "Open science",
        ("18a", "funding"),
        ("18b", "conflicts of interest"),
        ("18c", "protocol"),
        ("18d", "registration"),
        ("18e", "availability of data", "licence source", "how to get them"),
        ("18f", "availability of code", "code", "where it can be had"),
        ("19", "involvement of patients and the public"),
    )
    + _build_items(
        "Results",
        ("20a", "flow of participants, with and without the outcome", "counts", "flow chart"),
        ("20b", "characteristics of participants", "counts", "age, sex, sites, dates"),
        ("20c", "evaluation data beside development data", "counts tested", "distribution of what matters"),
        ("21", "participants and outcomes in each analysis", "counts tested"),
        ("22", "the whole model, to be used on others", "model weights", "where it can be had"),
        ("23a", "performance with intervals, subgroups too", "performance points calibration subgroups"),
        ("23b", "heterogeneity found between clusters"),
        ("24", "result of updating", "recalibration calibration"),
    )
    + _build_items(
        "Discussion",
        ("25", "interpretation"),
        ("26", "limitations"),
        ("27a", "poor or missing input in use", "indeterminate", "how it is found and handled"),
        ("27b", "what users must do and know"),
        ("27c", "next steps"),
    ),
)

STARD_AI = Guideline(
    "STARD-AI",
    "STARD-AI (2025)",
    "Sounderajah V et al. The STARD-AI reporting guideline for diagnostic accuracy studies using artificial "
    "intelligence. Nat Med 2025;31:3283-3289. doi:10.1038/s41591-025-03953-8",
    _build_items(
        "Title and abstract",
        ("1", "title or abstract: accuracy of an AI test, with a measure", "performance", "the title"),
        ("2", "structured abstract"),
    )
    + _build_items(
        "Introduction", ("3", "background, use of the test, place in the work"), ("4", "objectives, hypotheses")
    )
    + _build_items(
        "Participants and data",
        ("5", "data gathered before or after the test"),
        ("6", "ethics approval"),
        ("7", "eligibility of participants and of data"),
        ("8", "how participants were found"),
        ("9", "setting and dates"),
        ("10", "consecutive, random or at convenience"),
        ("11", "source of the data", "source", "whether gathered in routine"),
        ("12", "who annotated, and how"),
        ("13", "devices; software of the test", "software", "makers and models of devices"),
        ("14", "acquisition and preprocessing", "view", "acquisition"),
    )
    + _build_items(
        "Test methods",
        ("15a", "the index test, to be done again", "model view software"),
        ("15b", "how it was developed, with sample sizes", "training selection split counts"),
        ("15c", "cut-offs, and whether fixed beforehand", "thresholds"),
        ("15d", "who is to use it, with what expertise"),
        ("16a", "reference standard, to be done again", "classes", "how it was set"),
        ("16b", "why this reference standard"),
        ("16c", "cut-offs of the reference standard"),
        ("17a", "what the readers of the test knew"),
        ("17b", "what the assessors of the reference knew"),
    )
    + _build_items(
        "Analysis",
        ("18", "how accuracy is estimated and compared", "intervals"),
        ("19", "indeterminate results", "indeterminate", "those of the reference standard"),
        ("20", "missing data"),
        ("21", "analyses of variability", "subgroups robustness", "which were planned"),
        ("22", "sample size", "tested", "how it was arrived at"),
        ("23", "analysis of errors, bias and fairness", "subgroups", "which groups matter, and why"),
    )
    + _build_items(
        "Results",
        ("24", "flow of participants", "counts", "flow chart"),
        ("25", "characteristics of training, validation and test sets", "counts", "age, sex, disease, devices"),
        ("26a", "severity of disease"),
        ("26b", "other diagnoses of those without it"),
        ("27", "time between test and reference"),
        ("28", "whether the data represent the intended use", "prevalence", "the intended population"),
        ("29", "how an external set differs", "external", "in what it differs"),
        ("30", "test against reference, crosswise", "crosstab"),
        ("31", "accuracy with precision", "performance points"),
        ("32", "adverse events"),
    )
    + _build_items(
        "Discussion",
        ("33", "limitations"),
        ("34", "implications for practice"),
        ("35", "ethics of its use, fairness"),
    )
    + _build_items(
        "Other",
        ("36", "registration"),
        ("37", "protocol"),
        ("38", "funding"),
        ("39", "commercial interests"),
        ("40a", "availability of data and code", "licence code", "where they can be had"),
        ("40b", "whether outputs are kept and can be audited", "kept"),
    ),
)

GUIDELINES = {each.name: each for each in (CLAIM, TRIPOD_AI, STARD_AI)}
