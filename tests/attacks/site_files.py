"""A site's files as other accounts of its machine meet them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_entry import ALLOWED, Entry
from med_duallora.boundary.ledger_marker import marker_of
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.model import SiteModel
from med_duallora.site.state import Owner, SiteState, SiteStateStore

OWNER = Owner("identity", "b" * 64)
ENTRY = Entry("j1", "ge", "train", "tensors", ALLOWED, sha256="0" * 64)
JOB = JobConfig(backbone="cinema-tiny").with_overrides(["experiment=attack"])


def state_of(round_index: int) -> SiteState:
    return SiteState(round_index, {"block.local_a": np.full(3, round_index, np.float32)}, {})


def ledger_of(place: Path) -> Ledger:
    path = place / "audit" / "egress_ledger.jsonl"
    return Ledger(path, marker_of(path, place / "state"))


def save_states(place: Path) -> None:
    for round_index in range(2):
        store = SiteStateStore(place / "deep" / "state" / "experiment" / "run", OWNER)
        with store.locked():
            store.save(state_of(round_index))


def note(place: Path) -> None:
    ledger_of(place / "deep").append(ENTRY)


def site_model(home: Path, checkpoint: Path) -> SiteModel:
    places = {name: home / name for name in ("data_dir", "state_dir", "cache_dir")}
    return SiteModel("siemens", JOB, SiteConfig(**places, backbone_checkpoint=checkpoint, device="cpu"))


def subjects_of(cohorts: dict[str, Path], n: int) -> Sequence[PreparedSubject]:
    return PreparedCohort.read(cohorts["siemens"]).subjects[:n]


def entries_of(model: SiteModel) -> list[Path]:
    return sorted(model.cache.directory.glob("*/*.safetensors"))
