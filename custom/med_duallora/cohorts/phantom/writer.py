"""Write a whole phantom cohort: raw folders, the M&Ms table, the true values and what it is; resumable."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from med_duallora.cohorts.phantom.layouts import (
    MNMS_COLUMNS,
    MNMS_TABLE,
    frame_shares,
    mnms_row,
    write_subject,
)
from med_duallora.cohorts.phantom.plan import LARGEST_COHORT, PRESETS, Entry, plan_cohort
from med_duallora.cohorts.phantom.provenance import RECIPE_FILE
from med_duallora.cohorts.phantom.solve import solve_phases, wall_thickness
from med_duallora.cohorts.phantom.subject import Phantom, draw_subject, render_subject
from med_duallora.errors import CohortError, ConfigError
from med_duallora.files import write_json, write_text
from med_duallora.progress import track

TRUTH_FILE = "truth.csv"
RECIPE_VERSION = 1  # raise it whenever the same seed gives other voxels

NOTICE_LINE = "Synthetic phantoms - not for diagnosis."
README = """{notice}

Every image here was computed by `med-duallora phantom` from parameter tables; no person was scanned.
Preset {preset}, seed {seed}, {n_subjects} subjects.

acdc/       raw layout of the ACDC challenge (frames count from 1; labels 1 RV, 2 myocardium, 3 LV)
mnms/       raw layout of the M&Ms challenge (frames count from 0; labels 1 LV, 2 myocardium, 3 RV)
truth.csv   the true volumes (mL), ejection fractions (%) and wall thickness (mm) that the images were drawn from
phantom.json  the recipe: the same recipe gives the same voxels
"""
UNLABELLED = """An unlabelled pool for self-supervised pre-training: its images alone are meant to be used.
Info.cfg names a group because the layout wants one. Pre-training reads neither groups nor segmentations
(preparation uses the segmentation's place only, to centre the crop, as for every cohort).
"""


@dataclass(frozen=True)
class Recipe:
    """What a phantom cohort is made from.

    Args:
        preset: demo, study or pretrain.
        seed: at least 0.
        n_per_vendor: subjects per vendor; None takes the preset's number.

    Raises:
        ConfigError: a value is out of range.
    """

    preset: str = "demo"
    seed: int = 0
    n_per_vendor: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"preset = {self.preset!r}, but it must be one of {', '.join(PRESETS)}")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}, but it must be at least 0")
        if not 4 <= self.n <= LARGEST_COHORT:
            raise ConfigError(f"n_per_vendor = {self.n}, but it must be between 4 and {LARGEST_COHORT}")

    @property
    def n(self) -> int:
        """Subjects per vendor."""
        return PRESETS[self.preset] if self.n_per_vendor is None else self.n_per_vendor

    def to_dict(self) -> dict[str, object]:
        """Return what is recorded in the cohort."""
        return {"version": RECIPE_VERSION, "preset": self.preset, "seed": self.seed, "n_per_vendor": self.n}


def write_cohort(out: Path, recipe: Recipe, n_jobs: int = 1) -> int:
    """Write a cohort into ``out`` and return its number of subjects.

    A cohort that is there already with the same recipe is completed: subjects that are whole stay as they are.

    Args:
        out: a new or empty folder, or one with the same recipe.
        recipe: what to make.
        n_jobs: processes, at least 1.

    Raises:
        CohortError: ``out`` holds something else.
        ConfigError: ``n_jobs`` is below 1.
    """
    if n_jobs < 1:
        raise ConfigError(f"jobs = {n_jobs}, but it must be at least 1")
    _claim(out, recipe)
    entries = plan_cohort(recipe.preset, recipe.seed, recipe.n)
    make = partial(_make, out, recipe.preset != "pretrain")
    truths = list(track(_run(make, entries, n_jobs), f"phantoms ({recipe.preset})", len(entries)))
    _write_tables(out, recipe, entries, truths)
    return len(entries)


def _claim(out: Path, recipe: Recipe) -> None:
    path = out / RECIPE_FILE
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != recipe.to_dict():
            raise CohortError(f"{out} holds another phantom cohort ({found}); choose another folder or remove it")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CohortError(f"{out} exists and is no phantom cohort; choose a new folder")
    write_json(path, recipe.to_dict())


def _run(make: "partial[dict[str, object]]", entries: Sequence[Entry], n_jobs: int) -> Iterable[dict[str, object]]:
    if n_jobs == 1:
        yield from map(make, entries)
        return
    with ProcessPoolExecutor(n_jobs) as pool:
        yield from pool.map(make, entries, chunksize=2)


def _make(out: Path, cine: bool, entry: Entry) -> dict[str, object]:
    phantom = draw_subject(entry.identity)
    folder = out / entry.layout / entry.place / entry.name
    if not folder.is_dir():
        shares = frame_shares(entry, cine)
        write_subject(folder, entry, phantom, render_subject(phantom, shares), shares)
    return truth_row(entry, phantom)


def truth_row(entry: Entry, phantom: Phantom) -> dict[str, object]:
    """Return a subject's row of the table of true values: volumes in mL, EF in percent, mass in g, lengths in mm."""
    heart, look, pose = phantom.anatomy, phantom.look, phantom.pose
    ed, es = solve_phases(heart)
    numbers = {
        "severity": heart.severity,
        "lv_edv": heart.lv_edv,
        "lv_esv": heart.lv_esv,
        "lv_ef": heart.lv_ef,
        "rv_edv": heart.rv_edv,
        "rv_esv": heart.rv_esv,
        "rv_ef": heart.rv_ef,
        "myocardium_ed": heart.myocardium_ed,
        "myocardium_es": heart.myocardium_es,
        "mass_g": heart.mass,
        "wall_mean_ed": wall_thickness(ed)[0],
        "wall_mean_es": wall_thickness(es)[0],
        "wall_max_ed": wall_thickness(ed)[1],
        "length_ed": heart.length_ed,
        "shortening": heart.shortening,
        "spacing": pose.spacing,
        "slice_spacing": pose.slice_spacing,
        "snr": look.snr,
    }
    return {
        "subject": entry.name,
        "layout": entry.layout,
        "vendor": entry.identity.vendor,
        "centre": entry.centre,
        "scanner": look.scanner,
        "field_t": look.field_t,
        "pathology": entry.identity.pathology,
        "territory": heart.territory if heart.akinesia else "",
        **{name: f"{value:.4f}" for name, value in numbers.items()},
    }


def _write_tables(out: Path, recipe: Recipe, entries: Sequence[Entry], truths: Sequence[dict[str, object]]) -> None:
    mnms = [entry for entry in entries if entry.layout == "mnms"]
    if mnms:
        rows = [mnms_row(number, entry, draw_subject(entry.identity)) for number, entry in enumerate(mnms)]
        write_text(out / "mnms" / "OpenDataset" / MNMS_TABLE, _csv_text(rows, MNMS_COLUMNS))
    write_text(out / TRUTH_FILE, _csv_text(truths, list(truths[0])))
    text = README.format(notice=NOTICE_LINE, preset=recipe.preset, seed=recipe.seed, n_subjects=len(entries))
    if recipe.preset == "pretrain":
        write_text(out / "LABELS_ARE_NOT_USED.txt", UNLABELLED)
        text = text + "\n" + UNLABELLED
    write_text(out / "README.txt", text)


def _csv_text(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
