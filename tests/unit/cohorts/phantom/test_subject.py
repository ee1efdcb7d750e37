from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.phantom import Identity, draw_subject, render_subject
from med_duallora.cohorts.phantom.parameters import PATHOLOGIES
from tests.unit.cohorts.phantom.conftest import coarse


def test_the_same_seed_gives_the_same_voxels() -> None:
    first, again = (render_subject(coarse(draw_subject(Identity(9, 1, 2, "philips", "HCM")))) for _ in range(2))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.affine, again.affine)


@pytest.mark.parametrize("pathology", PATHOLOGIES[1:])
def test_the_class_changes_no_nuisance(pathology: str) -> None:
    healthy, ill = (draw_subject(Identity(9, 1, 2, "ge", name)) for name in ("NOR", pathology))
    assert healthy.look == ill.look
    assert healthy.body.chest_radii == ill.body.chest_radii
    assert healthy.body.person == ill.body.person
    assert np.array_equal(healthy.body.vessels, ill.body.vessels)
    assert replace(healthy.pose, shape=(), bottom=0) == replace(ill.pose, shape=(), bottom=0)
    assert healthy.pose.shape[:2] == ill.pose.shape[:2]
    assert healthy.anatomy != ill.anatomy


def test_the_class_changes_no_noise() -> None:
    """Far from the heart, where bodies are alike, two classes give the same voxels."""
    identities = [Identity(9, 1, 2, "ge", name) for name in ("NOR", "MINF")]
    first, other = (coarse(draw_subject(identity)) for identity in identities)
    other = replace(other, pose=first.pose)
    corners = [render_subject(phantom).frames[:, :6, :6] for phantom in (first, other)]
    assert np.array_equal(*corners)


def test_the_vendor_changes_no_heart() -> None:
    one, other = (draw_subject(Identity(9, 1, 2, vendor, "DCM")) for vendor in ("siemens", "canon"))
    assert one.anatomy == other.anatomy
    assert one.look != other.look


def test_frames_are_as_asked() -> None:
    phantom = coarse(draw_subject(Identity(9, 1, 2, "canon", "NOR")))
    rendering = render_subject(phantom, (1.0, 0.0, 0.5))
    assert rendering.frames.shape == rendering.labels.shape == (3, *phantom.pose.shape)
    assert rendering.frames.dtype == np.int16
    es, ed, middle = (int((frame == 1).sum()) for frame in rendering.labels)
    assert es < middle < ed
