"""What a study has found so far: the records of its runs, as series of answers and as one table of results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from med_duallora.cohorts.csvfile import table_text
from med_duallora.errors import ArtifactError
from med_duallora.study.plan import RunSpec
from med_duallora.study.statistics import SCORES, Answers, Resampling, Scored, Split
from med_duallora.study.ways import BOTH
from med_duallora.support.files import read_object
from med_duallora.support.private import open_own

COLUMNS = (
    *("cohort", "synthetic", "recipe", "arm", "variant", "seed", "site", "n_train", "n_test", "n_diseased"),
    *SCORES,
    *("tensor_bytes", "payload_bytes", "seconds", "cpu_seconds", "run", "code"),
)
"""Of results.csv; docs/study.md explains them."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        spec: what was run.
        record: what ``running.run_one`` wrote.
    """

    spec: RunSpec
    record: dict[str, Any]

    def answers(self, variant: str) -> dict[str, Answers]:
        """Return the answers of a variant by site; a site that has no such variant is left out."""
        return {
            site: Answers(tuple(found["subjects"]), tuple(found["labels"]), tuple(found["chances"][variant]))
            for site, found in self.record["sites"].items()
            if variant in found["chances"]
        }

    @property
    def variants(self) -> list[str]:
        """Return the variants that a site has."""
        return list(dict.fromkeys(name for found in self.record["sites"].values() for name in found["chances"]))


def finished(specs: Iterable[RunSpec]) -> list[Run]:
    """Return the runs that have a record.

    Raises:
        ArtifactError: a record is damaged, or of another run.
    """
    found = []
    for spec in specs:
        if not spec.path.exists():
            continue
        try:
            record = read_object(spec.path, open_own)
            intact = record["key"] == spec.key and bool(record["sites"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{spec.path} is damaged ({error}); delete it, and the same command runs it") from error
        if not intact:
            raise ArtifactError(f"{spec.path} is the record of another run; delete it, and the same command runs it")
        found.append(Run(spec, record))
    return found


def series_of(runs: Sequence[Run], variant: str = BOTH) -> dict[Split, dict[str, Answers]]:
    """Return the answers of runs of one arm by split and site; a run without this variant is left out."""
    return {(run.spec.cohort.name, run.spec.seed): said for run in runs if (said := run.answers(variant))}


def result_rows(runs: Sequence[Run], payload_bytes: Sequence[int]) -> list[dict[str, Any]]:
    """Return one row per run, variant and site, as ``COLUMNS`` names them; no subject stands in it.

    Args:
        runs: all that are done.
        payload_bytes: of each run: what a site sends in a round, serialised.
    """
    rows = []
    for run, n_bytes in zip(runs, payload_bytes, strict=True):
        for variant in run.variants:
            series = series_of([run], variant)
            scored = Scored(series, Resampling.of([series], 0))
            for (split, site), found in scored.units.items():
                answers = series[split][site]
                rows.append(
                    {
                        "cohort": run.spec.cohort.name,
                        "synthetic": {True: "yes", False: "no", None: "some"}[run.record["synthetic"]],
                        "recipe": run.spec.recipe,
                        "arm": run.spec.arm.name,
                        "variant": variant,
                        "seed": run.spec.seed,
                        "site": site,
                        "n_train": run.record["sites"][site]["n_train"],
                        "n_test": len(answers.labels),
                        "n_diseased": sum(answers.labels),
                        **{score: round(float(found[score][0]), 6) for score in SCORES},
                        "tensor_bytes": run.record["tensor_bytes"],
                        "payload_bytes": n_bytes,
                        **{name: round(run.record[name], 1) for name in ("seconds", "cpu_seconds")},
                        "run": run.spec.key,
                        "code": run.record["code"]["package_sha256"][:12],
                    }
                )
    return rows


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of results as CSV."""
    return table_text(COLUMNS, rows)
