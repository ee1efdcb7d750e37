"""Damaged NIfTI files by the hundred, prepared in one run: ``python -m tests.unit.cohorts.fuzz FOLDER N``.

Prints one JSON object: what came of each subject, and the most memory that the process held.
"""

import contextlib
import gzip
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_tables import PrepareOptions
from med_duallora.cohorts.subject import ImageSource, RawSubject
from tests.unit.cohorts.raw import heart, heart_es, oblique_affine, texture

Generator = np.random.Generator
FRAME = (512, 512, 64)  # the largest that is read
NASTY = (0, 1, -1, 2, 348, 32767, -32768, 1e-30, 1e30, 3e38, -3e38, np.nan, np.inf, -np.inf)
FIELDS = (
    *("dim", "pixdim", "vox_offset", "datatype", "bitpix", "scl_slope", "scl_inter", "qform_code", "sform_code"),
    *("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "qoffset_x", "xyzt_units", "magic", "sizeof_hdr"),
)


def header_bytes(content: bytes, rng: Generator) -> bytes:
    """Overwrite a few bytes of the header."""
    damaged = bytearray(content)
    for place in rng.integers(0, min(544, len(content)), rng.integers(1, 9)):
        damaged[place] = rng.integers(0, 256)
    return bytes(damaged)


def header_fields(content: bytes, rng: Generator) -> bytes:
    """Set one or two fields to what nobody expects there."""
    kind = nib.Nifti1Header if content[344:347] == b"n+1" else nib.Nifti2Header
    size = kind.sizeof_hdr
    if len(content) < size:
        return content
    header = kind(content[:size], check=False)
    for name in rng.choice(FIELDS, rng.integers(1, 3), replace=False):
        value = NASTY[rng.integers(len(NASTY))]
        with contextlib.suppress(ValueError, OverflowError, TypeError), np.errstate(all="ignore"):
            if header[name].ndim:
                header[name][rng.integers(header[name].size)] = value
            else:
                header[name] = value
    return bytes(header.binaryblock) + content[size:]


def truncated(content: bytes, rng: Generator) -> bytes:
    return content[: rng.integers(0, len(content))]


def some_bytes(content: bytes, rng: Generator) -> bytes:
    """Overwrite a few bytes anywhere."""
    damaged = bytearray(content)
    for place in rng.integers(0, max(len(content), 1), rng.integers(1, 20)):
        damaged[place : place + 1] = bytes([rng.integers(0, 256)])
    return bytes(damaged)


def garbage_behind(content: bytes, rng: Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 5000)))


def nothing_like_it(_: bytes, rng: Generator) -> bytes:
    return rng.bytes(int(rng.integers(0, 3000)))


def damaged(image: bytes, rng: Generator) -> bytes:
    """Damage a file before or after compression, or both."""
    before: tuple[Callable[[bytes, Generator], bytes], ...] = (header_bytes, header_fields, header_fields, truncated)
    after = (some_bytes, truncated, garbage_behind, nothing_like_it)
    content = image
    if rng.random() < 0.75:
        content = before[rng.integers(len(before))](content, rng)
        if rng.random() < 0.5:
            return gzip.compress(content, 1, mtime=0)
        return content
    content = gzip.compress(content, 1, mtime=0) if rng.random() < 0.8 else content
    return after[rng.integers(len(after))](content, rng)


def chain(block: bytes, n_bytes: int) -> bytes:
    """Return a compressed stream that repeats a block of 1 MiB, cheaply: equal members one after the other."""
    return gzip.compress(block, mtime=0) * (n_bytes // 2**20)


def largest_frame(image: bytes, rng: Generator) -> bytes:
    """A frame as large as is read, of doubles, all of them there: this one is not a bomb and is prepared."""
    header = nib.Nifti1Header(image[:348])
    header.set_data_dtype(np.float64)
    header.set_data_shape(FRAME)
    header["pixdim"][3] = 5.0  # else it would be longer than a chest
    block = rng.integers(20, 900, 2**17).astype("<f8").tobytes()
    return gzip.compress(bytes(header.binaryblock) + bytes(4), mtime=0) + chain(block, 8 * int(np.prod(FRAME)))


def endless(image: bytes, _: Generator) -> bytes:
    """Eight gigabytes behind a small image."""
    return gzip.compress(image, mtime=0) + chain(bytes(2**20), 2**33)


def promised_but_absent(image: bytes, _: Generator) -> bytes:
    """The header of the largest cine and a small part of its voxels."""
    header = nib.Nifti1Header(image[:348])
    header.set_data_shape((512, 512, 40, 100))
    return gzip.compress(bytes(header.binaryblock) + bytes(4), mtime=0) + chain(bytes(2**20), 2**26)


BOMBS = {largest_frame: "", endless: "too-large", promised_but_absent: "unreadable-file"}


def subject(folder: Path, number: int, rng: Generator) -> RawSubject:
    """Write a subject of four files; every tenth is whole, one of the others' files is damaged."""
    kind = nib.Nifti1Image if rng.random() < 0.7 else nib.Nifti2Image
    images = {"ed": texture(2 * number), "es": texture(2 * number + 1), "ed_gt": heart(), "es_gt": heart_es()}
    victim = list(images)[rng.integers(4)]
    sources = []
    for name, data in images.items():
        image = kind(data, oblique_affine())
        image.set_qform(oblique_affine(), code=1)
        content = image.to_bytes()
        if number < len(BOMBS):
            if name.endswith("_gt"):
                break
            content = list(BOMBS)[number](nib.Nifti1Image(data, oblique_affine()).to_bytes(), rng)
        elif number >= len(BOMBS) and number % 10 and name == victim:
            content = damaged(content, rng)
        path = folder / f"{number:03d}_{name}.nii.gz"
        path.write_bytes(content)
        sources.append(ImageSource(path))
    return RawSubject(f"s{number:03d}", "table", "DCM", "ge", "c", *sources)


def peak_bytes() -> int:
    """Return the most memory held at once; a rusage may count what the parent process held before this one began."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(folder: Path, n_subjects: int) -> None:
    rng = np.random.default_rng(20)
    raw = folder / "raw"
    raw.mkdir()
    subjects = [subject(raw, number, rng) for number in range(n_subjects)]
    result = prepare_cohorts(folder / "out", subjects, [], PrepareOptions())
    outcome = {item.subject: [item.reason, item.detail] for item in result.refused}
    outcome |= {row["subject"]: ["", row["remarks"]] for row in result.cohorts["ge"]}
    print(json.dumps({"outcome": outcome, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
