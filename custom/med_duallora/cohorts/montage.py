"""A picture to judge cohorts by eye: mid slices at ED and ES, their difference and the stacks' histograms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from med_duallora.cohorts.nifti import Array, read_nifti
from med_duallora.cohorts.prepared import COHORT_TABLE, PreparedCohort, PreparedSubject, load_volume
from med_duallora.cohorts.provenance import NOTICE, is_synthetic
from med_duallora.cohorts.readers import LAYOUTS
from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.cohorts.vocabulary import STANDARD
from med_duallora.errors import CohortError, InputError, SubjectRefused
from med_duallora.support.files import atomic_path
from med_duallora.support.private import PRIVATE_FILE

S = TypeVar("S", RawSubject, PreparedSubject)

WHITE_PERCENTILE = 99.5
N_BINS = 64
COLUMN_TITLES = ("ED", "ES", "|ED - ES|", "histogram")


@dataclass(frozen=True)
class MontageRow:
    """One subject.

    Args:
        title: what stands beside it.
        ed: image at ED, (x, y, slices).
        es: image at ES, the same shape.
        spacing: in-plane voxel size in mm (x, y).
        synthetic: whether it is a phantom.
    """

    title: str
    ed: Array
    es: Array
    spacing: tuple[float, float]
    synthetic: bool


def read_rows(paths: Sequence[Path], n_per_cohort: int) -> list[MontageRow]:
    """Return the rows of everything that ``paths`` name.

    Args:
        paths: prepared cohorts (or a folder of them), raw ACDC, M&Ms or M&Ms-2 cohorts, phantom cohorts, and NIfTI
            files in pairs, each ED before its ES.
        n_per_cohort: how many subjects of each cohort, spread over its pathologies.

    Raises:
        InputError: a path is nothing of that, or a NIfTI file has no partner.
        CohortError: a cohort or one of its images cannot be read.
    """
    rows: list[MontageRow] = []
    files = [path for path in paths if path.is_file()]
    if len(files) % 2:
        raise InputError(f"{files[-1]} has no partner: give NIfTI files in pairs, ED before ES")
    for path in paths:
        if path.is_dir():
            rows.extend(_folder_rows(path, n_per_cohort))
        elif not path.is_file():
            raise InputError(f"{path} does not exist")
    rows.extend(_pair_row(ed, es) for ed, es in zip(files[::2], files[1::2], strict=True))
    return rows


def _folder_rows(folder: Path, n_subjects: int) -> list[MontageRow]:
    tables = [folder / COHORT_TABLE, *sorted(folder.glob(f"*/{COHORT_TABLE}"))]
    cohorts = [table.parent for table in tables if table.is_file()]
    if cohorts:
        return [row for cohort in cohorts for row in _prepared_rows(cohort, n_subjects)]
    by_vendor: dict[str, list[RawSubject]] = {}
    for subject in _raw_subjects(folder):
        by_vendor.setdefault(subject.vendor, []).append(subject)
    return [_raw_row(item) for group in by_vendor.values() for item in _spread(group, n_subjects)]


def _raw_subjects(folder: Path) -> list[RawSubject]:
    layouts = [layout for layout in LAYOUTS if layout.place == "DIR"]
    found: list[RawSubject] = []
    for place in (folder, *(folder / layout.name for layout in layouts)):
        for layout in layouts:
            try:
                found.extend(layout.read(place, STANDARD)[0])
            except CohortError:  # not this layout; a folder of no layout at all is refused below
                continue
    if not found:
        raise InputError(f"{folder} is neither a prepared cohort nor a raw ACDC, M&Ms, M&Ms-2 or phantom cohort")
    return found


def _spread(subjects: Sequence[S], n: int) -> list[S]:
    """Return ``n`` of ``subjects``, taking pathologies in turn."""
    groups: dict[str, list[S]] = {}
    for subject in sorted(subjects, key=lambda item: (item.pathology, item.subject)):
        groups.setdefault(subject.pathology, []).append(subject)
    turns = max(len(group) for group in groups.values())
    return [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)][:n]


def _prepared_rows(directory: Path, n_subjects: int) -> list[MontageRow]:
    rows = []
    for subject in _spread(PreparedCohort.read(directory).subjects, n_subjects):
        ed, es = load_volume(subject)
        title = f"{subject.vendor}\n{subject.subject}\n{subject.pathology}"
        title += "\nED, ES automatic" if subject.frames == "automatic" else ""
        rows.append(MontageRow(title, ed, es, (1.0, 1.0), is_synthetic(directory)))
    return rows


def _raw_row(subject: RawSubject) -> MontageRow:
    (ed, spacing), (es, _) = (_frame(source) for source in (subject.ed, subject.es))
    title = f"{subject.vendor}\n{subject.subject}\n{subject.pathology}"
    return MontageRow(title, ed, es, spacing, is_synthetic(subject.ed.path))


def _pair_row(ed_path: Path, es_path: Path) -> MontageRow:
    (ed, spacing), (es, _) = (_frame(ImageSource(path)) for path in (ed_path, es_path))
    if ed.shape != es.shape:
        raise CohortError(f"{ed_path} has shape {ed.shape}, but {es_path} has {es.shape}")
    return MontageRow(ed_path.name.split(".")[0], ed, es, spacing, is_synthetic(ed_path))


def _frame(source: ImageSource) -> tuple[Array, tuple[float, float]]:
    try:
        image = read_nifti(source.path, None if source.frame is None else (source.frame,))
    except SubjectRefused as refused:
        raise CohortError(str(refused)) from refused
    data = image.data
    if data.ndim == 4 and source.frame is not None:
        data = data[..., 0]
    if data.ndim != 3:
        raise CohortError(f"{source.path} has shape {data.shape}; expected one stack of slices")
    return data, (image.spacing[0], image.spacing[1])


def write_montage(rows: Sequence[MontageRow], out: Path) -> None:
    """Draw ``rows`` into the PNG file ``out``, mode 0600: it shows patients.

    Raises:
        InputError: there are no rows, or ``out`` is not a PNG.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise InputError("there are no subjects to show")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out} must end in .png")
    figure = Figure(figsize=(10.2, 2.45 * len(rows) + 0.5), layout="constrained")
    n_synthetic = sum(row.synthetic for row in rows)
    if n_synthetic:
        figure.suptitle(NOTICE if n_synthetic == len(rows) else f"{n_synthetic} of {len(rows)} rows: {NOTICE}")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for row, row_axes in zip(rows, axes, strict=True):
        _draw(row, row_axes)
    for axis, title in zip(axes[0], COLUMN_TITLES, strict=True):
        axis.set_title(title, fontsize=9)
    with atomic_path(out, PRIVATE_FILE) as partial:
        figure.savefig(partial, format="png", dpi=80)


def _draw(row: MontageRow, axes: Array) -> None:
    from matplotlib.ticker import NullFormatter

    middle = row.ed.shape[2] // 2
    ed, es = (np.asarray(stack[:, :, middle], np.float32) for stack in (row.ed, row.es))
    white = max(float(np.percentile(row.ed, WHITE_PERCENTILE)), 1e-6)
    aspect = row.spacing[1] / row.spacing[0]
    for axis, picture in zip(axes[:3], (ed, es, np.abs(ed - es)), strict=True):
        axis.imshow(picture.T, cmap="gray", vmin=0, vmax=white, aspect=aspect, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel(f"{row.title}\nslice {middle + 1} of {row.ed.shape[2]}", fontsize=8)
    bins = np.linspace(0, white * 1.02, N_BINS + 1)
    for label, stack in (("ED", row.ed), ("ES", row.es)):
        axes[3].hist(np.ravel(stack), bins, alpha=0.5, label=label)
    axes[3].set_yscale("log")
    axes[3].yaxis.set_minor_formatter(NullFormatter())
    axes[3].tick_params(labelsize=7)
    axes[3].legend(fontsize=7)
