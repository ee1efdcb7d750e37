"""A tiny site, and changes of its cohort."""

import csv

from med_duallora.adapter.model import initial_global_state
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime

JOB = JobConfig(backbone="cinema-tiny").with_overrides(
    [
        "experiment=test",
        "train.n_rounds=3",
        "train.local_epochs=1",
        "train.batch_size=4",
        "train.n_views=1",
        "train.compare_alone=false",
    ]
)
START = initial_global_state(JOB)


def runtime_of(config: SiteConfig, job: JobConfig = JOB) -> SiteRuntime:
    return SiteRuntime("siemens", job, config)


def files_of(runtime: SiteRuntime) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in runtime.model.directory.iterdir()}


def cohort_with(folder, change) -> None:
    """Rewrite a tiny cohort's table row by row."""
    table = folder / "cohort.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(change(row) for row in rows)
