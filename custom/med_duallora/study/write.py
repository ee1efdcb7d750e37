"""Writes what a study found: results.csv and results.json, study.html and study.md with plots."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.study.comparison import Comparison
from med_duallora.study.families import families
from med_duallora.study.page import page_of
from med_duallora.study.plan import RunSpec
from med_duallora.study.records import Run, csv_of, finished, result_rows
from med_duallora.support.files import atomic_path, write_json, write_text

CSV, JSON, HTML, MARKDOWN = "results.csv", "results.json", "study.html", "study.md"


def write_study(planned: Sequence[RunSpec], out: Path, n_draws: int) -> Path:
    """Write tables, page and plots of all runs that are done; return the page's path.

    Raises:
        ArtifactError: a record is damaged.
        OSError: a file cannot be written.
    """
    runs = finished(planned)
    rows = result_rows(runs, [_payload(run) for run in runs])
    write_text(out / CSV, csv_of(rows))
    write_json(out / JSON, {"not_for_diagnosis": True, "runs": [_run(run) for run in runs], "results": _known(rows)})
    document = page_of(planned, comparisons(runs, n_draws), _codes(runs))
    for picture in document.pictures:
        with atomic_path(out / picture.name, 0o644) as partial:
            partial.write_bytes(picture.content)
    write_text(out / MARKDOWN, to_markdown(document))
    write_text(out / HTML, to_html(document))
    return out / HTML


def comparisons(runs: Sequence[Run], n_draws: int) -> list[Comparison]:
    """Return one comparison per recipe and cohort, or per recipe and all cohorts of the same subjects together."""
    cohorts = {run.spec.cohort.name: run.spec.cohort for run in runs}
    together = {name: ", ".join(names) for names in families(cohorts.values()) for name in names}
    groups: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        name = run.spec.cohort.name
        arms = groups.setdefault((together.get(name, name), run.spec.recipe), {})
        arms.setdefault(run.spec.arm.name, []).append(run)
    return [
        Comparison(*names, arms, {arm: _payload(found[0]) for arm, found in arms.items()}, n_draws)
        for names, arms in groups.items()
    ]


def _payload(run: Run) -> int:
    """Return what a site sends in a round, serialised; 0 where nothing is sent."""
    if not run.record["tensor_bytes"]:
        return 0
    from med_duallora.flare.wire.size import payload_bytes  # FLARE takes seconds to import

    train = dataclasses.replace(run.spec.job.train, seed=0)
    return payload_bytes(dataclasses.replace(run.spec.job, train=train, backbone_sha256=""))


def _codes(runs: Sequence[Run]) -> list[str]:
    found = [run.record["code"] for run in runs]
    texts = (
        f"{code['version']}, package {code['package_sha256'][:12]}"
        + (f", revision {code['revision']}" if code["revision"] else "")
        for code in found
    )
    return list(dict.fromkeys(texts))


def _run(run: Run) -> dict[str, object]:
    """Return what a run was, without any subject."""
    kept = (
        "cohort",
        "synthetic",
        "arm",
        "recipe",
        "seed",
        "key",
        "decides",
        "code",
        "seconds",
        "cpu_seconds",
        "tensor_bytes",
    )
    return {name: run.record[name] for name in (*kept, "rounds")}


def _known(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Return rows as JSON can hold them: a score that is not defined is left out."""
    return [{name: value for name, value in row.items() if value == value} for row in rows]  # noqa: PLR0124  NaN
