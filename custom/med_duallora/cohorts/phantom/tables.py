"""The tables and notices of a phantom cohort."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from med_duallora.cohorts.phantom.layouts import MNMS_COLUMNS, MNMS_TABLE, mnms_row
from med_duallora.cohorts.phantom.plan import Entry
from med_duallora.cohorts.phantom.recipe import Recipe
from med_duallora.cohorts.phantom.solve import solve_phases, wall_thickness
from med_duallora.cohorts.phantom.subject import Phantom, draw_subject
from med_duallora.support.files import write_text

TRUTH_FILE = "truth.csv"

NOTICE_LINE = "Synthetic phantoms - not for diagnosis."
README = """{notice}

Every image here was computed by `med-duallora phantom` from parameter tables; no person was scanned.
Preset {preset}, seed {seed}, {n_subjects} subjects.

acdc/       raw layout of the ACDC challenge (frames count from 1; labels 1 RV, 2 myocardium, 3 LV)
mnms/       raw layout of the M&Ms challenge (frames count from 0; labels 1 LV, 2 myocardium, 3 RV)
truth.csv   the true volumes (mL), ejection fractions (%) and wall thickness (mm) that the images were drawn from
phantom.json  the recipe: the same recipe gives the same voxels on one machine
"""
UNLABELLED = """An unlabelled pool for self-supervised pre-training: its images alone are meant to be used.
Info.cfg names a group because the layout wants one. Pre-training reads neither groups nor segmentations
(preparation uses the segmentation's place only, to centre the crop, as for every cohort).
"""


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


def write_tables(out: Path, recipe: Recipe, entries: Sequence[Entry], truths: Sequence[dict[str, object]]) -> None:
    """Write what describes the cohort, once all its subjects are there: M&Ms' table, the true values, the notices."""
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
