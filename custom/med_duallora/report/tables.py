"""The tables of a report."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from statistics import median

from med_duallora.cohorts.origin import Origin
from med_duallora.measures import SCORES, VARIANTS, score_name
from med_duallora.report.document import Table
from med_duallora.report.finished import Evaluation, Round, Run
from med_duallora.report.summary import by_site, counts, extent, macro, pooled, pooled_counts
from med_duallora.server.timing import PARTS
from med_duallora.support.proportions import wilson_interval

PROVENANCE = (
    "job_id",
    "manifest_version",
    "sha256",
    "contract_sha256",
    "backbone_sha256",
    "n_parameters",
    "sites",
    "n_rounds_by_site",
    "lineage",
    "intended_use",
    "versions",
)
"""What is shown of an adapter's manifest: the settings have a table of their own, the round stands above."""
NONE = "–"
ALL_SITES = "all sites"
KIB = 1024


def number(value: float | None) -> str:
    """Return a score with two decimals: test sets are small, more would look more precise than they are."""
    return NONE if value is None else f"{value:.2f}"


def between(interval: tuple[float, float] | None) -> str:
    """Return a 95 % interval of a score, or nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def moment(time: datetime | None) -> str:
    """Return a time as people write it, in UTC."""
    return NONE if time is None else f"{time.astimezone(timezone.utc):%d %b %Y, %H:%M} UTC"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def kib(n_bytes: float) -> str:
    """Return a size in KiB with one decimal."""
    return f"{n_bytes / KIB:,.1f}"


def result_tables(run: Run) -> list[Table]:
    """Return one table per metric: a row per variant; macro, pooled, worst and spread before a column per site."""
    return [_result_table(run.evaluation, name) for name, score in SCORES.items() if score.in_report]


def _result_table(evaluation: Evaluation, metric: str) -> Table:
    sites = list(evaluation.sites)
    rows, shown = [], variants(evaluation)
    for variant in shown:
        values, reach = by_site(evaluation, variant, metric), extent(evaluation, variant, metric)
        row = [VARIANTS[variant].heading]
        row += [number(macro(evaluation, variant, metric)), number(pooled(evaluation, variant, metric))]
        row += [f"{reach.worst:.2f} ({reach.where})", number(reach.spread)] if reach else [NONE, NONE]
        rows.append([*row, *(number(values.get(site)) for site in sites)])
    return Table(
        caption=f"Test {SCORES[metric].heading}",
        header=["variant", "macro", "pooled", "worst site", "spread", *sites],
        rows=rows,
        note=" ".join(filter(None, [SCORES[metric].note, _uneven(evaluation, shown, metric)])),
        strong_rows=[index for index, variant in enumerate(shown) if variant == "both"],
    )


def _uneven(evaluation: Evaluation, shown: Sequence[str], metric: str) -> str:
    """Say it where the means of a table are not over the same sites."""
    if len({frozenset(by_site(evaluation, variant, metric)) for variant in shown}) < 2:
        return ""
    return "A mean is over the sites that gave the score; one that only evaluates has no local adapter."


def variants(evaluation: Evaluation) -> list[str]:
    """Return the variants that at least one site evaluated, from none to both adapters."""
    return [
        variant
        for variant in VARIANTS
        if any(score_name(variant, score) in scores for scores in evaluation.sites.values() for score in SCORES)
    ]


def adapters_table(run: Run) -> Table:
    """Return the mean scores of every evaluated global adapter: the one of the report first."""
    leading = [name for name, score in SCORES.items() if score.leading]
    shown = [(variant, metric) for variant in ("both", "global") for metric in leading]
    rows = []
    for item in (run.evaluation, *run.other_evaluations):
        scores = [number(macro(item, variant, metric)) for variant, metric in shown]
        rows.append([item.model, NONE if item.round_index is None else str(item.round_index + 1), *scores])
    headings = [f"{VARIANTS[variant].short}: {SCORES[metric].heading}" for variant, metric in shown]
    return Table(
        caption="Evaluated global adapters, test scores, mean over sites",
        header=["adapter", "after round", *headings],
        rows=rows,
        note="Best: highest validation score of an incoming global adapter. The sites' local adapters are those after "
        "the last round, so only the last global adapter is the one that they were trained with.",
        strong_rows=[0],
    )


def interval_table(run: Run, variant: str) -> Table:
    """Return the counts behind sensitivity and specificity with 95 % intervals, per site and pooled, and the sizes."""
    rows, trained_on = [], _trained_on(run)
    for name, found in (
        *((site, counts(scores, variant)) for site, scores in run.evaluation.sites.items()),
        (ALL_SITES, pooled_counts(run.evaluation, variant)),
    ):
        size = str(trained_on.get(name, NONE))
        if found is None:
            rows.append([name, size, NONE, NONE])
        else:
            rows.append([name, size, share(found.rejections, found.n_negative), share(found.hits, found.n_positive)])
    return Table(
        caption=f"{VARIANTS[variant].heading.capitalize()}: test subjects classified correctly, with 95 % intervals",
        header=["site", "trained on", "NOR recognised (specificity)", "disease found (sensitivity)"],
        rows=rows,
        note="Wilson score intervals; subjects are independent, sites are not a random sample. Trained on: subjects of "
        "the site's training split, in the last round that it took part in, where the site tells.",
        strong_rows=[len(rows) - 1],
    )


def _trained_on(run: Run) -> dict[str, int]:
    """Return how many subjects each site trained on, of those that tell, and their sum as ``all sites``."""
    told = {
        name: int(site.metrics["n_subjects"])
        for item in run.rounds
        for name, site in item.sites.items()
        if "n_subjects" in site.metrics
    }
    return told | ({ALL_SITES: sum(told.values())} if told else {})


def share(n_hits: int, n: int) -> str:
    """Return how many of how many, with the 95 % interval in per cent."""
    if n == 0:
        return "no subject"
    low, high = wilson_interval(n_hits, n)
    return f"{n_hits} of {n}  ({100 * low:.0f}–{100 * high:.0f} %)"


def payload_table(run: Run) -> Table:
    """Return what every site sent per round, beside the bytes of its tensors alone."""
    rows = []
    for site in run.sites:
        sizes = [item.sites[site].payload_bytes for item in run.rounds if site in item.sites]
        raw_sizes = [item.tensor_bytes for item in run.rounds if site in item.sites]
        if sizes:
            ratio = max(size / raw for size, raw in zip(sizes, raw_sizes, strict=True))
            row = [
                str(len(sizes)),
                kib(min(sizes)),
                kib(max(sizes)),
                kib(max(raw_sizes)),
                f"{ratio:.3f}",
                kib(sum(sizes)),
            ]
        else:
            row = ["0", *[NONE] * 5]
        rows.append([site, *row])
    return Table(
        caption="Serialised payload of a train task, KiB",
        header=["site", "rounds", "smallest", "largest", "tensors alone", "largest / tensors", "sent in total"],
        rows=rows,
        note="Tensors alone: number of values times 4 bytes. Headers of FLARE and gRPC are not counted.",
    )


def limits_table(run: Run) -> Table:
    """Return in how many rounds a site's update or weight counted for less than it claimed; no row: nowhere."""
    rows = []
    for site in run.sites:
        factors = [item.clipped[site] for item in run.rounds if site in item.clipped]
        weights = [item.capped[site] for item in run.rounds if site in item.capped]
        if factors or weights:
            least = [f"{min(factors):.3g}" if factors else NONE, f"{min(weights):.4g}" if weights else NONE]
            rows.append([site, str(len(factors)), least[0], str(len(weights)), least[1]])
    return Table(
        caption=f"Contributions that counted for less, in {len(run.rounds)} rounds",
        header=["site", "updates shortened", "to, at the least", "weights lowered", "to, at the least"],
        rows=rows,
    )


def time_table(run: Run) -> Table:
    """Return each round's seconds, split into the slowest site's computing and everything else."""
    rows = [
        [str(item.number), str(len(item.sites)), f"{item.seconds:.1f}", *_split(item), str(len(item.refused))]
        for item in run.rounds
    ]
    total, training = sum(item.seconds for item in run.rounds), sum(map(training_seconds, run.rounds))
    refused = sum(len(item.refused) for item in run.rounds)
    rows.append(["all", "", f"{total:.1f}", f"{training:.1f}", f"{total - training:.1f}", str(refused)])
    return Table(
        caption="Time per round, seconds",
        header=["round", "sites", "round", "computing (slowest site)", "everything else", "refused"],
        rows=rows,
        note="Computing: the validation before training, and the training. Everything else: FLARE's messages, start-up "
        "and polling, aggregation, and waiting while sites share the machine. Round 1 fills the feature cache.",
        strong_rows=[len(rows) - 1],
    )


def times_table(run: Run) -> Table:
    """Return where the time of a round goes beside the computing of the site that answered last."""
    rows = []
    for part, words in PARTS.items():
        seconds = sorted(times[part] for times in run.times)
        rows.append([words, f"{median(seconds):.2f}", f"{seconds[0]:.2f}", f"{seconds[-1]:.2f}"])
    return Table(
        caption=f"Beside the computing of the site that answered last, seconds, {len(run.times)} rounds",
        header=["part of a round", "median", "least", "most"],
        rows=rows,
        note="By the server's clock. A site that does not tell its computing counts it as transfer.",
    )


def training_seconds(item: Round) -> float:
    """Return the longest time that a site of this round trained, at most the round's own."""
    return min(item.seconds, max((site.metrics.get("seconds", 0.0) for site in item.sites.values()), default=0.0))


def _split(item: Round) -> tuple[str, str]:
    training = training_seconds(item)
    return f"{training:.1f}", f"{item.seconds - training:.1f}"


def configuration_table(run: Run) -> Table:
    """Return the job's settings, one row each, named as ``--set`` takes them."""
    return Table("Job configuration", ["setting", "value"], list(_flat(run.job.to_dict())))


def provenance_table(run: Run) -> Table:
    """Return where the result comes from: when, which job and adapter, and what made it; no setting stands twice."""
    evaluation, (started, ended) = run.evaluation, (run.started, run.ended)
    after = evaluation.round_index
    rows = [
        ["started", moment(started)],
        ["ended", moment(ended)],
        ["duration", duration((ended - started).total_seconds()) if started and ended else NONE],
        ["subjects", _origin(run.origin)],
        ["evaluated adapter", evaluation.model + ("" if after is None else f", after round {after + 1}")],
        ["job.json sha256", run.job_sha256],
        *_flat({name: value for name, value in run.manifest.items() if name in PROVENANCE}),
    ]
    return Table("Provenance", ["what", "value"], rows)


def _origin(origin: Origin | None) -> str:
    """Say where the subjects come from."""
    if origin is None:
        return "not noted: the server never knows the sites' subjects"
    names = f" ({', '.join(origin.datasets)})" if origin.datasets else ""
    kind = {"all": "synthetic phantoms", "some": "synthetic phantoms at some sites, real patients at others"}
    return kind.get(origin.phantoms, "real patients") + names


def _flat(values: dict[str, object], prefix: str = "") -> Iterable[list[str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield [prefix + name, ", ".join(map(str, value)) or NONE]
        else:
            yield [prefix + name, NONE if value is None else str(value)]
