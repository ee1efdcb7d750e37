"""Fixtures for the whole suite: reference data, a tiny backbone and a tiny prepared federation."""

import contextlib
import csv
import ctypes
import functools
import gc
import gzip
import logging
import os
import re
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck
from xdist.scheduler import LoadFileScheduling

from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy

REPOSITORY = Path(__file__).resolve().parents[1]
FEDERATED = "tests/integration/federation/"
"""Tests that share one federation."""
EARLY = ("tests/integration/", "tests/unit/test_notebook.py", "tests/unit/cohorts/", "tests/unit/benchmarks/")
SITES = ("siemens", "philips", "ge", "canon")
COHORT_WORDS = re.compile(r"\b(?:siemens|philips|ge|canon)0\d\d\b|_sax_e[ds]|cohort\.csv|prepared\d*/\w")
"""Identifiers, files and folders of the tiny cohorts that ``write_tiny_cohort`` makes."""
COLUMNS = (  # noqa: SIM905
    "subject,pathology,label,vendor,centre,split,n_slices,spacing_x,spacing_y,spacing_z,source_sha256,crop_centre"
).split(",")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the shared federation begin first, see ``OneFederation``; nothing that takes long begins last."""
    items.sort(key=lambda item: [not item.nodeid.startswith(place) for place in (FEDERATED, *EARLY)])


def pytest_configure() -> None:
    """No example of a property is too slow on a machine that is busy with the other workers' tests.

    What is loaded while tests are collected stays: looking for garbage in it took an eighth of that time.
    """
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "OneFederation":
    """Deal tests out to workers."""
    return OneFederation(config, log)


class OneFederation(LoadFileScheduling):
    """A file's tests run in one worker, and so do all that share a federation: it is started once.

    They wait for its processes most of the time, take as long as all others together, and need less of the processor.
    """

    def _split_scope(self, nodeid: str) -> str:
        return FEDERATED if nodeid.startswith(FEDERATED) else str(super()._split_scope(nodeid))


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    """One thread unless OMP_NUM_THREADS says otherwise: two workers on two cores only slow each other down."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """Here and in every program that a test starts: a shell lets its background jobs ignore it, which is inherited."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """No log record of any test, from level INFO on, may name a subject, a file or a folder of a tiny cohort."""
    root, listener = logging.getLogger(), Listener(logging.INFO)
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.INFO)
    yield
    root.setLevel(level)
    root.removeHandler(listener)
    told = [text for text in listener.texts if COHORT_WORDS.search(text)]
    assert not told, f"a log record names what must stay at a site: {told[0]}"


class Listener(logging.Handler):
    """Keeps every record as a log file would show it, with the text of its exception."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@contextlib.contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    """No file becomes larger than ``n_bytes``, for this process and those that it starts: much like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A disk with room for files of 2 KiB at most."""
    with disk_of(2048):
        yield


@pytest.fixture
def bound_by_modes() -> Iterator[None]:
    """Modes of files and folders bind this thread, also where it is the administrator's, whom they do not bind else."""
    if os.geteuid():
        yield
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable ones, in two halves
    if not hasattr(libc, "capset") or libc.capget(header, rights):
        pytest.skip("the administrator's rights cannot be put down here")
    before = rights[0]
    rights[0] = before & ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER
    assert libc.capset(header, rights) == 0
    yield
    rights[0] = before
    assert libc.capset(header, rights) == 0


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the repository."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("reference data (shared/) is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded random backbone of preset cinema-tiny as a classifier checkpoint."""
    from safetensors.torch import save_file

    from med_duallora.backbone import BackboneConfig, build_classifier

    model = build_classifier(BackboneConfig.preset("cinema-tiny"), seed=7)
    path = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def tiny_cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One prepared cohort per site: 10 subjects with a disc whose contraction differs between the classes."""
    root = tmp_path_factory.mktemp("prepared")
    return {site: write_tiny_cohort(root / site, site, seed) for seed, site in enumerate(SITES)}


@pytest.fixture
def tiny_job() -> JobConfig:
    """A job of two rounds on the tiny backbone."""
    return JobConfig(backbone="cinema-tiny").with_overrides(
        [
            "experiment=test",
            "train.n_rounds=2",
            "train.local_epochs=1",
            "train.batch_size=4",
            "train.n_views=1",
            "train.compare_alone=false",
        ]
    )


@pytest.fixture
def tiny_sites(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path) -> dict[str, SiteConfig]:
    """A site configuration per site, with state and cache of this test alone."""
    return {
        site: SiteConfig(
            data_dir=folder,
            state_dir=tmp_path / site / "state",
            cache_dir=tmp_path / site / "cache",
            backbone_checkpoint=tiny_checkpoint,
            device="cpu",
            policy=SitePolicy.for_one_machine(),
        )
        for site, folder in tiny_cohorts.items()
    }


def write_tiny_cohort(
    folder: Path, vendor: str, seed: int, n_subjects: int = 10, n_by_split: tuple[int, int, int] = (6, 2, 2)
) -> Path:
    """Write a prepared cohort (see design: same file naming as CineMA's processed data)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    splits = [split for split, n in zip(("train", "val", "test"), n_by_split, strict=True) for _ in range(n)]
    rows = []
    for index, volumes in enumerate(_painted(seed, n_subjects)):
        label, name = index % 2, f"{vendor}{index:03d}"
        (folder / name).mkdir(parents=True)
        for phase, content in zip(("ed", "es"), volumes, strict=True):
            (folder / name / f"{name}_sax_{phase}.nii.gz").write_bytes(content)
        pathology = "DCM" if label else "NOR"
        row = (name, pathology, label, vendor, "1", splits[index], 4, 1.0, 1.0, 10.0, f"{index:064x}", "segmentation")
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    with (folder / "cohort.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@functools.lru_cache(maxsize=16)
def _painted(seed: int, n_subjects: int) -> list[tuple[bytes, bytes]]:
    """ED and ES of every subject as files; many tests want the same cohort in a folder of their own."""
    rng = np.random.default_rng(seed)
    radii = [(30, 28 if index % 2 else 18) for index in range(n_subjects)]
    return [(_packed(_disc(rng, ed)), _packed(_disc(rng, es))) for ed, es in radii]


def _packed(volume: np.ndarray) -> bytes:
    return gzip.compress(nib.Nifti1Image(volume, np.diag([1, 1, 10, 1])).to_bytes(), compresslevel=1, mtime=0)


def _disc(rng: np.random.Generator, radius: float) -> np.ndarray:
    x, y = np.mgrid[:192, :192] - 96 + rng.normal(0, 3, 2)[:, None, None]
    plane = np.where(np.hypot(x, y) < radius + rng.normal(0, 1), 200.0, 60.0)
    return (plane[..., None] + rng.normal(0, 8, (192, 192, 4))).clip(0, 255).astype(np.uint8)
