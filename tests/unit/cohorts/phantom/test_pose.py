import numpy as np
import pytest

from med_duallora.cohorts.phantom.parameters import VENDOR_APPEARANCE, VENDORS
from med_duallora.cohorts.phantom.pose import APICAL_MARGIN, USUAL_LENGTH, draw_pose, fit_pose
from med_duallora.cohorts.phantom.streams import stream


def draw(index: int, vendor: str = "siemens"):
    return draw_pose(stream(0, 0, index, "pose"), VENDOR_APPEARANCE[vendor])


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_affine_is_orthogonal_with_the_scan_s_spacing(vendor: str) -> None:
    pose = draw(3, vendor)
    axes = pose.affine()[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    assert lengths == pytest.approx([pose.spacing, pose.spacing, pose.slice_spacing])
    assert (axes / lengths).T @ (axes / lengths) == pytest.approx(np.eye(3), abs=1e-9)
    assert np.abs(np.linalg.inv(axes / lengths)).max() < 1  # oblique


def test_voxels_and_heart_coordinates_agree() -> None:
    pose = draw(5)
    u, v = pose.in_plane()
    voxel = (7, 11, 2)
    place = pose.affine() @ [*voxel, 1]
    heart = np.array([u[voxel[:2]], v[voxel[:2]], pose.heights[voxel[2]]])
    assert place[:3] == pytest.approx(np.array(pose.frame) @ heart + pose.origin, abs=1e-3)


def test_slice_order_is_mixed() -> None:
    rising = [np.all(np.diff(draw(index).heights) > 0) for index in range(40)]
    assert 3 < sum(rising) < 30


def test_quarter_turns_are_mixed() -> None:
    turns = {round(draw(index).angle / (np.pi / 2)) % 4 for index in range(80)}
    assert turns == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("length", "reason"), [(60.0, "a short heart"), (85.0, "a usual one"), (105.0, "a dilated one"), (130.0, "longer")]
)
def test_a_fitted_stack_reaches_from_base_to_apex(length: float, reason: str) -> None:
    for index in range(30):
        pose = draw(index)
        fitted = fit_pose(pose, length)
        assert fitted.heights.min() <= -APICAL_MARGIN + 1e-6, reason
        above = pose.heights.max() - USUAL_LENGTH
        assert fitted.heights.max() - length == pytest.approx(above), reason
        assert fitted.shape[2] >= pose.shape[2], reason
        assert len(fitted.shifts) >= fitted.shape[2], reason


def test_the_number_of_slices_hardly_depends_on_the_heart() -> None:
    more = [fit_pose(draw(index), 95.0).shape[2] - draw(index).shape[2] for index in range(100)]
    assert np.mean(more) < 0.5


def test_vendors_differ_in_spacing() -> None:
    siemens, philips = ([draw(index, vendor).spacing for index in range(60)] for vendor in ("siemens", "philips"))
    assert np.mean(siemens) - np.mean(philips) > 0.1
