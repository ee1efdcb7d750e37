"""One phantom: its draws, and its images and labels. Pure functions of seeds and class."""

from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.anatomy import Anatomy, draw_anatomy
from med_duallora.cohorts.phantom.appearance import Appearance, acquire, draw_appearance, receive_field
from med_duallora.cohorts.phantom.body import Body, draw_body
from med_duallora.cohorts.phantom.heart import heart_box, label_heart
from med_duallora.cohorts.phantom.painting import paint_heart
from med_duallora.cohorts.phantom.parameters import VENDOR_APPEARANCE
from med_duallora.cohorts.phantom.pose import Pose, draw_pose, fit_pose
from med_duallora.cohorts.phantom.solve import solve_phases
from med_duallora.cohorts.phantom.streams import stream
from med_duallora.cohorts.phantom.surroundings import Scene, paint_body
from med_duallora.cohorts.phantom.texture import Array


@dataclass(frozen=True)
class Identity:
    """What a subject is made from.

    Args:
        seed: the cohort's seed.
        pool: number of the pool (see ``streams.stream``).
        index: the subject's number in its pool.
        vendor: one of ``parameters.VENDORS``.
        pathology: one of ``parameters.PATHOLOGIES``.
        borderline: whether mild disease may be drawn.
    """

    seed: int
    pool: int
    index: int
    vendor: str
    pathology: str
    borderline: bool = True

    def stream(self, name: str) -> np.random.Generator:
        """Return the subject's stream ``name``, from its start."""
        return stream(self.seed, self.pool, self.index, name)


@dataclass(frozen=True)
class Phantom:
    """All draws of one subject."""

    identity: Identity
    anatomy: Anatomy
    body: Body
    pose: Pose
    look: Appearance


@dataclass(frozen=True)
class Rendering:
    """Images and labels of some phases.

    Args:
        frames: int16 images, (frames, x, y, slices).
        labels: uint8, the same shape: 1 LV cavity, 2 LV wall, 3 RV cavity.
        affine: voxel to patient mm (right, anterior, superior).
    """

    frames: Array
    labels: Array
    affine: Array


def draw_subject(identity: Identity) -> Phantom:
    """Draw a subject: nuisances first, each from its own stream, then the anatomy of its class."""
    vendor = VENDOR_APPEARANCE[identity.vendor]
    body = draw_body(identity.stream("body"))
    pose = draw_pose(identity.stream("pose"), vendor)
    look = draw_appearance(identity.stream("vendor"), vendor)
    anatomy = draw_anatomy(identity.stream("anatomy"), identity.pathology, identity.borderline)
    return Phantom(identity, anatomy, body, fit_pose(pose, anatomy.length_ed), look)


def render_subject(phantom: Phantom, shares: tuple[float, ...] = (0.0, 1.0)) -> Rendering:
    """Return images and labels at each share of the way from ED (0) to ES (1)."""
    pose, look = phantom.pose, phantom.look
    scene = scene_of(pose)
    texture, noise = phantom.identity.stream("texture"), phantom.identity.stream("noise")
    body = paint_body(scene, phantom.body, look, texture)
    box = heart_box(scene, phantom.anatomy, texture)
    field = receive_field(*pose.in_plane(), look)
    frames, labels = [], []
    for phase in solve_phases(phantom.anatomy, shares):
        signal = paint_heart(body, box, phase, look, pose.slice_thickness)
        frames.append(acquire(signal, field, look, pose.spacing, noise))
        label = np.zeros(scene.u.shape, np.uint8)
        label[box.window] = label_heart(box, phase)
        labels.append(label)
    return Rendering(np.stack(frames).transpose(0, 2, 3, 1), np.stack(labels).transpose(0, 2, 3, 1), pose.affine())


def scene_of(pose: Pose) -> Scene:
    """Return where every voxel of a scan lies in the heart."""
    u, v = pose.in_plane()
    shifts = np.asarray(pose.shifts[: pose.shape[2]], np.float32)
    return Scene(
        u + shifts[:, 0, None, None], v + shifts[:, 1, None, None], pose.heights.astype(np.float32), pose.spacing
    )
