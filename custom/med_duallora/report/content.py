"""Puts a run's report in order: what is said first, and how each number is explained."""

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.plan import AdapterPlan
from med_duallora.adapter.roles import GLOBAL, Role
from med_duallora.cohorts.origin import CITATIONS, Origin
from med_duallora.measures import SCORES
from med_duallora.report import drawing, joining, plots, tables
from med_duallora.report.document import Block, Document, KeyNumber, Paragraph, Picture, Section, Table
from med_duallora.report.examples import examples_picture
from med_duallora.report.finished import Run
from med_duallora.report.headline import headline, with_both
from med_duallora.report.release import RunGate, gate_of_run, release_blocks
from med_duallora.report.summary import macro
from med_duallora.settings.config import JobConfig
from med_duallora.settings.release import ReleaseFloors

NOT_FOR_DIAGNOSIS = "Research software, not for diagnosis."
SYNTHETIC = "Synthetic phantoms: no number here says anything about patients."
MIXED = "Some sites hold synthetic phantoms: numbers over all sites say nothing about patients."
REAL = "Real patients, research use."
KEEP = "This page shows images of patients: it must not leave this machine."

TERMS = (
    ("site", "a client of the federation; here, one hospital or the scanners of one vendor"),
    ("backbone", "the frozen foundation model; it is the same at every site, and what is trained is added to it"),
    ("backbone + head", "the frozen backbone, with a logistic head fitted to the site's own training subjects"),
    ("global adapter", "low-rank matrices (of fedavg-full whole ones) that all sites train, send and get averaged"),
    ("local adapter", "low-rank matrices that a site trains beside the global ones and never sends"),
    ("trained alone", "a training of the site's own, as method local-lora: same settings and passes, nothing sent"),
    ("global / local adapter only", "the trained model with the other adapter switched off; no training of its own"),
    ("what the site uses", "of these the one that its validation subjects chose; both adapters unless one is better"),
    ("payload", "what a site sends in a round, as it is serialised; its tensors alone are a little smaller"),
    ("round", "one training task at every site, then one aggregation; counted from 1 here, from 0 in FLARE's logs"),
)  # fmt: skip
SUMMARIES = (
    ("macro, pooled", "mean over sites, each counting the same; over all subjects together"),
    ("worst site, spread", "the lowest value over sites; the highest minus the lowest"),
    ("aggregation residual", "relative size of what is lost by averaging the factors instead of their products"),
)  # fmt: skip


def build(run: Run, floors: ReleaseFloors | None = None) -> Document:
    """Return the report of a run; with the section of the release gate where a floor asks for something."""
    return Document(
        title="Med-DualLoRA: report of a federated run",
        banner=banner(run.origin) + (f" {KEEP}" if shows_patients(run) else ""),
        headline=headline(run),
        key_numbers=_key_numbers(run),
        sections=_sections(run, gate_of_run(run.evaluation, floors or ReleaseFloors())),
    )


def shows_patients(run: Run) -> bool:
    """Return whether the report holds images of patients."""
    return bool(run.examples) and (run.origin is None or run.origin.phantoms != "all")


def banner(origin: Origin | None) -> str:
    """Say what the reader must know before any number: whose hearts these are, and what the numbers are not for."""
    if origin is None:
        return NOT_FOR_DIAGNOSIS
    return {"all": SYNTHETIC, "some": MIXED, "none": REAL}[origin.phantoms] + " " + NOT_FOR_DIAGNOSIS


def _key_numbers(run: Run) -> list[KeyNumber]:
    both, start = (macro(with_both(run), variant, "balanced_accuracy") for variant in ("both", "backbone"))
    payloads = [site.payload_bytes for item in run.rounds for site in item.sites.values()]
    seconds = sum(item.seconds for item in run.rounds)
    largest = f"{tables.kib(max(payloads))} KiB" if payloads else tables.NONE
    return [
        KeyNumber(tables.number(both), "balanced accuracy with both adapters, mean over sites"),
        KeyNumber(tables.number(start), "balanced accuracy of the backbone with a fitted head"),
        KeyNumber(
            largest,
            f"largest payload of a site in a round; its tensors alone {tables.kib(run.rounds[-1].tensor_bytes)} KiB",
        ),
        KeyNumber(tables.duration(seconds), _run_label(run)),
    ]


def _run_label(run: Run) -> str:
    rounds = "1 round" if len(run.rounds) == 1 else f"{len(run.rounds)} rounds"
    sites = "1 site" if len(run.sites) == 1 else f"{len(run.sites)} sites"
    begun = f", begun {tables.moment(run.started)}" if run.started else ""
    return f"for {rounds} at {sites}{begun}"


def _sections(run: Run, gate: RunGate | None) -> list[Section]:
    plot = plots.pictures(run)
    accuracy, *other_scores = tables.result_tables(run)
    others = ", ".join([score.heading for score in SCORES.values() if score.in_report][1:])
    intervals = tables.interval_table(run, "both")
    curves = [*(plot[curve.picture] for _, curve in plots.curves()), plot["residual"]]
    counted = [intervals, *_failures(run)]
    return [
        Section("Result", [Paragraph(_coarseness(run)), plot["variants"], *_comparison(run), accuracy, *counted]),
        *([Section("Release gate", release_blocks(gate))] if gate else []),
        Section(others[0].upper() + others[1:], other_scores),
        *_examples(run),
        Section("What left the sites", [boundary_picture(run), Paragraph(_leaving(run)), tables.payload_table(run)]),
        Section("What counted for less", _limits(run)),
        Section("Training", [*curves, *([tables.adapters_table(run)] if run.other_evaluations else [])]),
        Section("Time", [plot["time"], tables.time_table(run), *([tables.times_table(run)] if run.times else [])]),
        Section("Configuration", [tables.configuration_table(run)]),
        Section("Provenance", [*_citations(run), tables.provenance_table(run)]),
        Section("Glossary", _glossary()),
    ]  # fmt: skip


def _examples(run: Run) -> list[Section]:
    return [Section("Examples", [examples_picture(run)])] if run.examples else []


def _comparison(run: Run) -> list[Block]:
    return [table for table in (joining.comparison_table(run), joining.choice_table(run)) if table]


def _limits(run: Run) -> list[Block]:
    """Say whose updates the server shortened and whose weights it did not count in full."""
    said = Paragraph(
        "With three or more sites, the server scales an update down that is longer than the median of its round, and "
        "counts a weight far above the median for less, so that no single site can turn the average against the "
        "others; the longer half of honest updates is a little shortened as well."
    )
    table = tables.limits_table(run)
    return [said, table] if table.rows else [Paragraph("Every contribution counted as it came.")]


def _citations(run: Run) -> list[Block]:
    """Ask the reader to cite the data sets whose patients are behind the numbers."""
    names = run.origin.datasets if run.origin else ()
    text = "; ".join(CITATIONS[name] for name in names)
    return [Paragraph(f"Cite with every use of these numbers: {text}.")] if names else []


def boundary_picture(run: Run) -> Picture:
    """Return the picture of what stays and what leaves in this job."""
    payload = _sent(plan_of(run.job))
    payloads = [site.payload_bytes for item in run.rounds for site in item.sites.values()]
    detail = f"{tables.kib(max(payloads))} KiB a round, and metrics" if payloads else "and metrics"
    svg = drawing.boundary(run.sites, _staying(run.job), payload, detail)
    return Picture(
        "boundary.svg",
        svg.encode(),
        f"A site and the server with the boundary between them; only the {payload} crosses it and comes back averaged.",
        f"What leaves a site: the {payload}, its weight and the agreed metrics.",
        width=drawing.WIDTH,
    )


def _sent(plan: AdapterPlan) -> str:
    """Return in words what leaves by a method's plan."""
    factors = plan.sent & GLOBAL
    adapter = "global adapter" if factors == GLOBAL else " and ".join(sorted(role.value for role in factors))
    if Role.WEIGHTS in plan.sent:
        adapter = Role.WEIGHTS.value  # those of their norms among them
    with_head = " with the head's weights" if plan.lora.head_policy == "shared" else ""
    return adapter + with_head + (" and head" if Role.HEAD in plan.sent else "")


def _staying(job: JobConfig) -> list[str]:
    plan = plan_of(job)
    lines = ["scans, labels, predictions", "frozen backbone, feature cache"]
    if plan.lora.rank_local:
        lines.append("local adapter")
    lines += sorted(role.value for role in plan.kept & GLOBAL)
    if Role.NORM in plan.kept:
        lines.append(Role.NORM.value)
    if Role.HEAD in plan.kept:
        lines.append("bias of the head" if plan.lora.head_policy == "shared" else "classification head")
    return [*lines, "optimizer state"]


def _leaving(run: Run) -> str:
    n_refused = sum(len(item.refused) for item in run.rounds)
    refused = (
        f"The server refused {n_refused} contribution(s): " if n_refused else "The server refused no contribution."
    )
    reasons = "; ".join(text for item in run.rounds for text in item.refused)
    return (
        "A payload holds the tensors of the egress contract and nothing else; the job's filter builds it at the "
        "site, and the server checks it again. Alongside it go the site's weight, its training and validation metrics, "
        "and after the last round its test scores with the counts behind them, each where both classes have as many "
        f"subjects as the site demands. {refused}{reasons}"
    )


def _coarseness(run: Run) -> str:
    sites = run.evaluation.sites
    scores = {site: values for site, values in sites.items() if {"n_positive", "n_negative"} <= set(values)}
    if not scores:
        return f"{_subject(run)} The sites did not send the numbers of test subjects; read the scores with care."
    silent = ", ".join(site for site in sites if site not in scores)
    without = f" {silent} did not send the numbers." if silent else ""
    sizes = ", ".join(
        f"{site} {int(values['n_negative'])} + {int(values['n_positive'])}" for site, values in scores.items()
    )
    smallest = min((int(v[k]) for v in scores.values() for k in ("n_positive", "n_negative") if v[k]), default=0)
    step = (
        f" In the smallest of these groups one subject moves balanced accuracy by {0.5 / smallest:.2f}."
        if smallest
        else ""
    )
    return f"{_subject(run)} Test subjects, NOR + disease: {sizes}.{without}{step} Threshold 0.5, never tuned."


def _subject(run: Run) -> str:
    """Say which global adapter the scores belong to."""
    evaluation = run.evaluation
    after = "" if evaluation.round_index is None else f", after round {evaluation.round_index + 1} of {len(run.rounds)}"
    return f"Scores of the {evaluation.model} global adapter{after}."


def _failures(run: Run) -> list[Block]:
    failed = run.evaluation.failed
    reasons = "; ".join(f"{site}: {reason}" for site, reason in failed.items())
    return [Paragraph(f"Without a result, and not included in any number here: {reasons}.")] if failed else []


def _glossary() -> list[Block]:
    scores = [(score.heading, score.meaning) for score in SCORES.values() if score.in_report]
    return [Table("Terms used above", ["term", "meaning"], [list(entry) for entry in (*TERMS, *scores, *SUMMARIES)])]
