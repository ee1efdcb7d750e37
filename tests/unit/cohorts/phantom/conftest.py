"""Phantoms shared by the tests of this folder: a written cohort, and a gallery of coarse renderings."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from med_duallora.cohorts.phantom import (
    Identity,
    Phantom,
    Recipe,
    Rendering,
    draw_subject,
    render_subject,
    write_cohort,
)
from med_duallora.cohorts.phantom.parameters import VENDORS
from med_duallora.cohorts.volume import PreparedVolume
from tests.unit.cohorts.phantom.measures import prepared

ILL = ("DCM", "HCM", "MINF", "RV")
N_PER_VENDOR = 24
COARSER = 1.6


@dataclass(frozen=True)
class Picture:
    phantom: Phantom
    rendering: Rendering
    volume: PreparedVolume

    @property
    def label(self) -> int:
        return int(self.phantom.identity.pathology != "NOR")

    @property
    def vendor(self) -> str:
        return self.phantom.identity.vendor


def coarse(phantom: Phantom) -> Phantom:
    """The same phantom seen with larger voxels, for speed."""
    pose = phantom.pose
    shape = (round(pose.shape[0] / COARSER), round(pose.shape[1] / COARSER), pose.shape[2])
    return replace(phantom, pose=replace(pose, spacing=pose.spacing * COARSER, shape=shape))


def gallery_identities() -> list[Identity]:
    """Healthy and ill in turn, all pathologies alike, for every vendor."""
    return [
        Identity(1, number, index, vendor, "NOR" if index % 2 == 0 else ILL[index // 2 % 4])
        for number, vendor in enumerate(VENDORS)
        for index in range(N_PER_VENDOR)
    ]


@pytest.fixture(scope="session")
def gallery() -> list[Picture]:
    pictures = []
    for identity in gallery_identities():
        phantom = coarse(draw_subject(identity))
        rendering = render_subject(phantom)
        pictures.append(Picture(phantom, rendering, prepared(phantom, rendering)))
    return pictures


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo cohort on disk; read only."""
    out = tmp_path_factory.mktemp("phantoms") / "demo"
    assert write_cohort(out, Recipe("demo", seed=5, n_per_vendor=4)) == 16
    return out


def labels_of(pictures: list[Picture]) -> np.ndarray:
    return np.array([picture.label for picture in pictures])


def vendors_of(pictures: list[Picture]) -> np.ndarray:
    return np.array([picture.vendor for picture in pictures])
