"""Write one phantom as ACDC or M&Ms would lay it out; the folder appears whole or not at all."""

import shutil
import uuid
from pathlib import Path

import numpy as np

from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.phantom.plan import Entry
from med_duallora.cohorts.phantom.subject import Phantom, Rendering
from med_duallora.cohorts.phantom.texture import Array
from med_duallora.support.files import PARTIAL

# shares of the way from ED to ES of the stored frames
CINE = (0.0, 0.55, 1.0)
STILLS = (0.0, 1.0)

ACDC_NUMBERS = np.array([0, 3, 2, 1], np.uint8)  # 1 RV, 2 MYO, 3 LV
MNMS_TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
MNMS_COLUMNS = (
    "",
    "External code",
    "VendorName",
    "Vendor",
    "Centre",
    "ED",
    "ES",
    "Age",
    "Pathology",
    "Sex",
    "Height",
    "Weight",
)
MNMS_PATHOLOGY = {"RV": "ARV", "MINF": "IHD"}
MNMS_VENDOR = {"siemens": ("Siemens", "A"), "philips": ("Philips", "B"), "ge": ("GE", "C"), "canon": ("Canon", "D")}


def frame_shares(entry: Entry, cine: bool) -> tuple[float, ...]:
    """Return the shares of the way from ED to ES of an entry's stored frames, in stored order."""
    shares = CINE if cine or entry.layout == "mnms" else STILLS
    return shares[-entry.first_frame :] + shares[: -entry.first_frame] if entry.first_frame else shares


def write_subject(
    folder: Path, entry: Entry, phantom: Phantom, rendering: Rendering, shares: tuple[float, ...]
) -> None:
    """Write a subject's files into ``folder``, which must not exist yet; as the umask says, because it is nobody."""
    partial = folder.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        if entry.layout == "acdc":
            _write_acdc(partial, entry, phantom, rendering, shares)
        else:
            _write_mnms(partial, entry, rendering, shares)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_acdc(folder: Path, entry: Entry, phantom: Phantom, rendering: Rendering, shares: tuple[float, ...]) -> None:
    """ACDC numbers frames from 1, swaps label numbers, and stores no orientation but the spacing."""
    pose = phantom.pose
    affine = np.diag([-pose.spacing, -pose.spacing, pose.slice_spacing, 1.0])
    affine[:2, 3] = [pose.spacing * (n - 1) / 2 for n in pose.shape[:2]]
    ed, es = shares.index(0.0) + 1, shares.index(1.0) + 1
    for frame in (ed, es):
        stem = f"{entry.name}_frame{frame:02d}"
        _write_image(folder / f"{stem}.nii.gz", rendering.frames[frame - 1], affine)
        write_nifti(folder / f"{stem}_gt.nii.gz", ACDC_NUMBERS[rendering.labels[frame - 1]], affine, mode=None)
    if len(shares) > 2:
        _write_image(folder / f"{entry.name}_4d.nii.gz", np.moveaxis(rendering.frames, 0, -1), affine)
    _, _, height, weight = phantom.body.person
    info = {
        "ED": ed,
        "ES": es,
        "Group": entry.identity.pathology,
        "Height": f"{height:.1f}",
        "NbFrame": len(shares),
        "Weight": f"{weight:.1f}",
    }
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in info.items()), encoding="utf-8")


def _write_mnms(folder: Path, entry: Entry, rendering: Rendering, shares: tuple[float, ...]) -> None:
    """M&Ms stores all frames in one file; its segmentation is empty but for ED and ES."""
    labels = rendering.labels.copy()
    for k, share in enumerate(shares):
        if share not in (0.0, 1.0):
            labels[k] = 0
    _write_image(folder / f"{entry.name}_sa.nii.gz", np.moveaxis(rendering.frames, 0, -1), rendering.affine)
    write_nifti(folder / f"{entry.name}_sa_gt.nii.gz", np.moveaxis(labels, 0, -1), rendering.affine, mode=None)


def _write_image(path: Path, voxels: Array, affine: Array) -> None:
    write_nifti(path, voxels, affine, mode=None, noisy=True)


def mnms_row(number: int, entry: Entry, phantom: Phantom) -> dict[str, object]:
    """Return the subject's row of the M&Ms table; its frames count from 0."""
    shares = frame_shares(entry, cine=True)
    vendor, letter = MNMS_VENDOR[entry.identity.vendor]
    age, sex, height, weight = phantom.body.person
    pathology = MNMS_PATHOLOGY.get(entry.identity.pathology, entry.identity.pathology)
    frames = (shares.index(0.0), shares.index(1.0))
    values = (number, entry.name, vendor, letter, entry.centre, *frames, age, pathology, sex, height, weight)
    return dict(zip(MNMS_COLUMNS, values, strict=True))
