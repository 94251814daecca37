"""The verbs that functions of the source begin with, the names that need none, and words that name nothing."""

# a new verb is added here: that is the moment to ask whether one of these says it already
_VERBS = """
accept accepts add admit adopt advance age agree align analyse answer append apply are arrange ask assemble assess
assign associate attempt attribute audit average begin bend bin bind blank blend bootstrap borrow bound box break
brighten build burn cache calibrate call carry cast catch change changes check choose clamp classify clean clip
clone close cluster collate collect colour combine commit compare complete compress compute condition connect
contains convert copy correct correlate count create crop cross cut darken deal decide decode decorate deform
deidentify delete derive describe develop digest dilate dissect divide download draw drop embed encode end
enlarge enter equalise erase escape estimate evaluate exchange exclude excludes expand expect explain export expose
extract fail fetch fill find fingerprint finish fit flag flatten flip fold follow follows foretell format forward frame
freeze gather get give group grow guard halve has hash hold ignore import impute inflate insert integrate interleave
interpolate intersect is iterate join judge keep label leave letter limit linearise link list load locate log look
make map mark match may measure mend mention merge move name needs normalise note number on open order orient
outline pack paint pair parse pass paste patch permute personalise place plan point post postpone predict predicts
prefix prepare print probe project pseudonymise put quote randomise rank rasterise read recalibrate receive
recognise record reduce refer reformat refuse register remark remember remove rename render reopen reorient repair
repeat replace report require resample resize resolve restore resume retrain retrieve retry return reverse
rewrite round run sample save scale schedule score seal search see seed sees select send separate serve set settle shade
shape shorten show shrink shuffle sign simulate size slice smooth soften solve sort space spell split spoil spread
square stack stage stamp standardise start state step store straighten stress stretch strip submit suggest sum summarise
suppress survives swap sync tabulate take tell test thin threshold tint to touch trace train transpose try tune turn
unify unite unpack unwrap update upgrade upsample validate verify vote walk watch weigh widen word wrap write zoom
"""
VERBS = frozenset(_VERBS.split())

# formulas, tests and measures that everybody calls by these names, and the entries of programs
_KNOWN = """
cohen_kappa deletion delong dice fleiss_kappa holm insertion intraclass_correlation iobb iou jackknife
kolmogorov_smirnov krippendorff_alpha main mcnemar paired_bootstrap paired_permutation population_stability_index road
staple welch welch_from_summary
"""
KNOWN_BY_NAME = frozenset(_KNOWN.split())

# participles that do not end in "ed"
_IRREGULAR = """
begun built drawn found given held kept known laid lost made said seen sent shown sold taken taught told written
"""
PARTICIPLES = frozenset(_IRREGULAR.split())

# names of variables that tell nobody what they hold
EMPTY_NAMES = frozenset({"said", "told", "came", "laid", "taught"})


def is_participle(word: str) -> bool:
    """Whether a word is the past participle of a verb, not the verb itself."""
    return word in PARTICIPLES or (word.endswith("ed") and word not in VERBS and len(word) > 4)
