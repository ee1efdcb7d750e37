"""The page of a study: what was found, in plain words first, then tables and plots."""

from collections.abc import Sequence

from med_duallora.report.content import MIXED, NOT_FOR_DIAGNOSIS, REAL, SYNTHETIC
from med_duallora.report.document import Block, Document, KeyNumber, Paragraph, Section, Table
from med_duallora.study import tables
from med_duallora.study.arms import ALONE, REFERENCE
from med_duallora.study.comparison import Comparison
from med_duallora.study.pictures import pictures
from med_duallora.study.plan import RunSpec
from med_duallora.study.statistics import MACRO
from med_duallora.study.words import PAPER, difference, verdict, with_interval

SYNTHETIC_LABEL, SOME_LABEL = "synthetic phantoms", "some sites: synthetic phantoms"
RIVALS = {"own-head": "a head of the site's own on the frozen backbone", ALONE: "training alone"}

TOGETHER = (
    "{n} federations were cut from the same subjects. Their runs are taken together: every pair of a federation and a "
    "seed is a split of these subjects, and the bootstrap draws a subject once, within its class, with all its answers "
    "in all federations. A site's name means other subjects in each of them."
)


def page_of(planned: Sequence[RunSpec], found: Sequence[Comparison], codes: Sequence[str]) -> Document:
    """Return the page.

    Args:
        planned: every run of the study.
        found: one comparison per cohort and recipe, in the order in which they shall stand.
        codes: the versions of the code that the runs were made with.
    """
    n_done = sum(len(runs) for one in found for runs in one.runs.values())
    sections = [_section(one, index) for index, one in enumerate(found, start=1)]
    return Document(
        title="Med-DualLoRA: study",
        banner=_banner({spec.cohort.is_synthetic for spec in planned}),
        headline=" ".join(_headline(one) for one in found) or "No run is finished yet.",
        key_numbers=_key_numbers(planned, n_done),
        sections=[*sections, *_recipes(found), _how(planned, codes)],
    )


def _banner(kinds: set[bool | None]) -> str:
    origin = SYNTHETIC if kinds == {True} else REAL if kinds == {False} else MIXED
    return f"{origin} {NOT_FOR_DIAGNOSIS}"


def _name(found: Comparison) -> str:
    return f"{found.cohort}, recipe {found.recipe}"


def _headline(found: Comparison) -> str:
    """Say whether the reference is shown to be better than what a site has without it."""
    kind = {True: "synthetic phantoms", False: "real patients", None: "phantoms and patients"}[found.synthetic]
    if REFERENCE not in found.scored:
        return f"{_name(found)} ({kind}): {REFERENCE} was not run."
    mean = with_interval(found.scored[REFERENCE].estimate(MACRO))
    said = [
        f"{difference(found.against[arm].difference)} against {text}: {verdict(found.against[arm].difference)}"
        for arm, text in RIVALS.items()
        if arm in found.against
    ]
    return f"{_name(found)} ({kind}): macro balanced accuracy of {REFERENCE} {'; '.join([mean, *said])}."


def _key_numbers(planned: Sequence[RunSpec], n_done: int) -> list[KeyNumber]:
    return [
        KeyNumber(f"{n_done} of {len(planned)}", "runs done"),
        KeyNumber(str(len({spec.arm.name for spec in planned})), "methods and references"),
        KeyNumber(str(len({spec.seed for spec in planned})), "seeds, each with its own split"),
        KeyNumber(str(len({(spec.cohort.name, site) for spec in planned for site in spec.cohort.sites})), "sites"),
    ]


def _section(found: Comparison, index: int) -> Section:
    label = {True: SYNTHETIC_LABEL, False: "", None: SOME_LABEL}[found.synthetic]
    blocks: list[Block] = [Paragraph(f"These subjects are {label}.")] if label else []
    if len(found.cohorts) > 1:
        blocks.append(Paragraph(TOGETHER.format(n=len(found.cohorts))))
    if found.scored:
        blocks += [tables.main_table(found), *pictures(found, f"study-{index}", label), tables.site_table(found)]
        blocks.append(Paragraph(PAPER))
    optional: list[Table | None] = [
        tables.cohort_table(found),
        tables.against_table(found),
        tables.joining_table(found),
        tables.attribution_table(found),
        tables.shots_table(found),
    ]
    blocks += [table for table in optional if table is not None]
    return Section(_name(found), [*blocks, tables.arms_table(found)])


def _recipes(found: Sequence[Comparison]) -> list[Section]:
    """Return what the recipes change, where there are several."""
    cohorts = dict.fromkeys(one.cohort for one in found)
    compared = {cohort: tables.recipe_table([one for one in found if one.cohort == cohort]) for cohort in cohorts}
    return [Section(f"{cohort}: the recipes", [table]) for cohort, table in compared.items() if table is not None]


def _how(planned: Sequence[RunSpec], codes: Sequence[str]) -> Section:
    """Say how it was done, as far as one sentence each can."""
    first = planned[0]
    n_test = "all others" if first.n_test is None else f"up to {first.n_test}"
    words = [
        f"Every seed deals each site's subjects out anew: {first.n_train} to train on, stratified by class, {n_test} "
        "to test. Nothing is chosen on test subjects: the scores are those after the last round, at threshold 0.5.",
        "A value is the mean over splits. Its 95 % interval is a bootstrap over test subjects within site and class; a "
        "subject is drawn with all its answers, and the same draws serve every method. It does not hold what other "
        "training subjects or other sites would change.",
        f"Code: {', '.join(codes) or 'none yet'}." + (" More than one version made these runs!" if codes[1:] else ""),
    ]
    return Section("How it was done", [*map(Paragraph, words), _settings(planned)])


def _settings(planned: Sequence[RunSpec]) -> Table:
    """Return the settings in which the recipes differ from each other, or all of the only one."""
    flat = {recipe: _of_recipe(recipe, planned) for recipe in dict.fromkeys(spec.recipe for spec in planned)}
    first = next(iter(flat.values()))
    own = ("method", "train.seed", "backbone_sha256", "experiment")
    names = [name for name in first if name not in own]
    if len(flat) > 1:
        names = [name for name in names if len({recipe[name] for recipe in flat.values()}) > 1]
    rows = [[name, *(recipe[name] for recipe in flat.values())] for name in names]
    caption = "Settings that differ between recipes" if len(flat) > 1 else "Settings"
    return Table(caption=caption, header=["setting", *flat], rows=rows)


def _of_recipe(recipe: str, planned: Sequence[RunSpec]) -> dict[str, str]:
    """Return the settings of a recipe by name; where methods differ, each value says whose it is."""
    here = {spec.arm: spec.job for spec in planned if spec.recipe == recipe}
    trained = {arm.name: job for arm, job in here.items() if arm.method} or {arm.name: job for arm, job in here.items()}
    by_arm = {name: _flat(job.to_dict()) for name, job in trained.items()}
    return {name: _value({arm: flat[name] for arm, flat in by_arm.items()}) for name in next(iter(by_arm.values()))}


def _value(by_arm: dict[str, str]) -> str:
    arms_of: dict[str, list[str]] = {}
    for arm, value in by_arm.items():
        arms_of.setdefault(value, []).append(arm)
    if len(arms_of) == 1:
        return next(iter(arms_of))
    most = max(arms_of, key=lambda value: len(arms_of[value]))
    return ", ".join(f"{value} ({'others' if value == most else ', '.join(arms)})" for value, arms in arms_of.items())


def _flat(values: dict[str, object], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": str(value)}
    return found
