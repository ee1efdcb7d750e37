import csv
from pathlib import Path

import pytest

from med_duallora.cohorts.origin import Origin, origin_of
from tests.conftest import write_tiny_cohort


def cohort(folder: Path, *datasets: str, synthetic: bool = False) -> Path:
    """Write a tiny cohort whose subjects come from these data sets in turn."""
    write_tiny_cohort(folder, "ge", seed=1)
    with (folder / "cohort.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "cohort.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "dataset"])
        writer.writeheader()
        writer.writerows({**row, "dataset": datasets[n % len(datasets)]} for n, row in enumerate(rows))
    if synthetic:
        (folder / "preparation.json").write_text('{"synthetic": true}')
    return folder


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [(["table"], ()), (["acdc"], ("acdc",)), (["mnms2", "mnms"], ("mnms", "mnms2")), (["table", "acdc"], ("acdc",))],
)
def test_published_data_sets_are_named_once_and_in_order(
    tmp_path: Path, datasets: list[str], expected: tuple[str, ...]
) -> None:
    assert origin_of([cohort(tmp_path / "a", *datasets)]) == Origin("none", expected)


def test_a_phantom_in_the_layout_of_a_data_set_cites_nobody(tmp_path: Path) -> None:
    phantom = cohort(tmp_path / "phantom" / "a", "acdc", synthetic=True)
    real = cohort(tmp_path / "real" / "b", "mnms")
    assert origin_of([phantom]) == Origin("all")
    assert origin_of([phantom, real]) == Origin("some", ("mnms",))
