"""Attacks by other accounts of a site's machine: files that they read, plant, or lead elsewhere by a link."""

import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from med_duallora.cohorts.montage import read_rows, write_montage
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_tables import PrepareOptions
from med_duallora.cohorts.table_template import write_template
from tests.attacks.site_files import (
    entries_of,
    note,
    save_states,
    site_model,
    subjects_of,
)
from tests.unit.cohorts.raw import write_subject

# --- what other accounts read ----------------------------------------------------------------------------------------


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def prepare(place: Path) -> None:
    prepare_cohorts(place / "deep" / "prepared", [write_subject(place.parent / "raw")], [], PrepareOptions())


def draw(place: Path) -> None:
    raw = write_subject(place.parent / "raw")
    write_montage(read_rows([raw.ed.path, raw.es.path], 1), place / "pictures" / "montage.png")


def fill_in(place: Path) -> None:
    write_template(place / "deep" / "table.csv")


WRITERS: list[tuple[str, Callable[[Path], None]]] = [
    ("prepared images, label maps and tables", prepare),
    ("a picture of patients", draw),
    ("local states and their lock", save_states),
    ("the ledger, its head, lock and marker", note),
    ("a table of patients to be filled in", fill_in),
]
UMASKS = (0o000, 0o022, 0o077, 0o777)


def modes_below(place: Path) -> dict[str, int]:
    return {str(path.relative_to(place)): stat.S_IMODE(path.lstat().st_mode) for path in place.rglob("*")}


def assert_private(place: Path) -> None:
    found = modes_below(place)
    assert found
    expected = {name: 0o700 if (place / name).is_dir() else 0o600 for name in found}
    assert found == expected


@pytest.mark.parametrize("mask", UMASKS, ids=[f"{mask:03o}" for mask in UMASKS])
@pytest.mark.parametrize(("what", "write"), WRITERS, ids=[row[0] for row in WRITERS])
def test_no_other_account_reads_it(what: str, write: Callable[[Path], None], mask: int, tmp_path: Path):
    place = tmp_path / "site"
    place.mkdir()
    with umask(0o022):
        write_subject(tmp_path / "raw")
    with umask(mask):
        write(place)
    assert_private(place)


@pytest.mark.parametrize("mask", UMASKS, ids=[f"{mask:03o}" for mask in UMASKS])
def test_nor_trunk_features_and_the_secret(mask: int, tmp_path: Path, tiny_checkpoint: Path, tiny_cohorts):
    with umask(mask):
        site_model(tmp_path / "site", tiny_checkpoint).source.batch(subjects_of(tiny_cohorts, 1), [0])
    assert_private(tmp_path / "site")


def test_what_an_earlier_version_left_open_is_closed_when_it_is_used_again(tmp_path: Path):
    raw, out = [write_subject(tmp_path / "raw")], tmp_path / "out"
    prepare_cohorts(out, raw, [], PrepareOptions())
    (folder,) = (record.parent for record in out.glob("*/*/preparation.json"))
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    assert prepare_cohorts(out, raw, [], PrepareOptions()).n_reused == 1
    assert_private(out)


# --- what they plant -------------------------------------------------------------------------------------------------


def crc_of(tensors: dict[str, torch.Tensor]) -> str:
    """The checksum of earlier versions, which anybody can compute."""
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].numpy().data, zlib.crc32(name.encode(), found))
    return f"{found:08x}"


def plant(one: Path, _other: Path) -> None:
    """Other features under the name of the first one, with the checksum that they need."""
    tensors = {name: torch.zeros_like(value) for name, value in load_file(one).items()}
    save_file(tensors, one, metadata={"crc32": crc_of(tensors)})


def swap(one: Path, other: Path) -> None:
    shutil.copy(other, one)


def of_another_site(one: Path, other: Path) -> None:
    """What another site, with another secret, computed of the same image, but of another subject."""
    shutil.copy(one.parents[2] / "another.safetensors", one)


PLANTED: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("features with the checksum that they need", plant),
    ("the features of another subject of the site", swap),
    ("features that another site sealed", of_another_site),
]


@pytest.mark.parametrize("row", PLANTED, ids=[row[0] for row in PLANTED])
def test_a_planted_feature_is_computed_again(row, tmp_path: Path, tiny_checkpoint: Path, tiny_cohorts, caplog):
    trick, change = row
    subjects = subjects_of(tiny_cohorts, 2)
    model, other_site = (site_model(tmp_path / name, tiny_checkpoint) for name in ("site", "other"))
    expected = model.source.batch(subjects[:1], [0]).tokens
    (one,) = entries_of(model)
    model.source.batch(subjects[1:], [0])
    (other,) = set(entries_of(model)) - {one}
    other_site.source.batch(subjects[1:], [0])
    shutil.copy(entries_of(other_site)[0], tmp_path / "site" / "another.safetensors")
    change(one, other)
    fresh = site_model(tmp_path / "site", tiny_checkpoint)
    for _ in range(2):
        assert torch.equal(fresh.source.batch(subjects[:1], [0]).tokens, expected), trick
    assert (fresh.cache.n_hits, fresh.cache.n_misses) == (1, 1)
    assert caplog.text.count("the feature cache holds entries that this site did not write") == 1
    assert one.stem not in caplog.text, "a log names nothing"
