"""What a preparation writes besides volumes: the cohorts' tables, the refused subjects and a summary."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from med_duallora import __version__
from med_duallora.cohorts.csvfile import table_text
from med_duallora.cohorts.prepare_folders import SUMMARY, remove_stale
from med_duallora.cohorts.prepare_one import Prepared
from med_duallora.cohorts.prepared import COHORT_TABLE, COLUMNS, REMARK_SEPARATOR, SPLITS
from med_duallora.cohorts.site_names import Sites
from med_duallora.cohorts.split import FRACTIONS
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.cohorts.volume import PREPARATION
from med_duallora.support.files import write_json, write_text
from med_duallora.support.private import PRIVATE_FILE

REFUSED_TABLE = "refused.csv"
REFUSED_COLUMNS = ("subject", "dataset", "source", "reason", "detail")


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    Args:
        seed: of the split.
        fractions: of train, val and test, see ``split.stratified_splits``.
        official_splits: use the splits of the cohorts' makers instead of a fresh stratified one.
        rotated_origin_shift: see ``volume.prepare_volume``.
        n_processes: processes.
        label_map: words for pathologies and vendors beside the standard ones, by kind.
        sites: what makes a cohort.
    """

    seed: int = 0
    fractions: Mapping[str, float] = field(default_factory=lambda: dict(FRACTIONS))
    official_splits: bool = False
    rotated_origin_shift: bool = False
    n_processes: int = 1
    label_map: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sites: Sites = field(default_factory=Sites)


@dataclass
class Preparation:
    """What came of a run.

    Args:
        n_read: subjects found, usable or not, by dataset.
        cohorts: rows of cohort.csv by site; a site without a prepared subject is absent.
        refused: every subject that was found but not prepared.
        n_reused: prepared subjects whose volumes were there already.
        notes: what a user should know about the sources and the splits, one sentence each without its full stop.
        synthetic: sites with a phantom among their subjects; pictures and reports of their cohorts say so.
        told_by: of each site, the values of the columns that make it, or that it was dealt from.
    """

    n_read: dict[str, int]
    cohorts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    n_reused: int = 0
    notes: list[str] = field(default_factory=list)
    synthetic: set[str] = field(default_factory=set)
    told_by: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def n_prepared(self) -> int:
        """Return the number of prepared subjects."""
        return sum(len(rows) for rows in self.cohorts.values())


def cohort_row(raw: RawSubject, split: str, prepared: Prepared) -> dict[str, Any]:
    """Return a subject's row of cohort.csv; spacing is the raw one, n_slices the prepared one."""
    spacing = {f"spacing_{axis}": f"{value:.6g}" for axis, value in zip("xyz", prepared.spacing, strict=True)}
    return {
        "subject": raw.subject,
        "pathology": raw.pathology,
        "label": raw.label,
        "vendor": raw.vendor,
        "centre": raw.centre,
        "split": split,
        "n_slices": prepared.n_slices,
        **spacing,
        "source_sha256": prepared.source_sha256,
        "crop_centre": prepared.crop_centre,
        "dataset": raw.dataset,
        "ed_voxels_sha256": prepared.ed_voxels_sha256,
        "es_voxels_sha256": prepared.es_voxels_sha256,
        "frames": raw.frames,
        "crop_confidence": "" if prepared.crop_confidence is None else f"{prepared.crop_confidence:.2f}",
        "remarks": REMARK_SEPARATOR.join(remark.replace(";", ",") for remark in (*raw.remarks, *prepared.remarks)),
    }


def write_tables(out: Path, result: Preparation, options: PrepareOptions) -> None:
    """Write all tables, mode 0600, and remove the folders of subjects that are no longer in one."""
    for site, rows in result.cohorts.items():
        # Each cohort goes to another place, so each says itself how it came about.
        origin = {"synthetic": site in result.synthetic, "site": result.told_by.get(site, {}), **_provenance(options)}
        write_json(out / site / SUMMARY, {**origin, "splits": split_counts(rows)}, PRIVATE_FILE)
        write_text(out / site / COHORT_TABLE, table_text(COLUMNS, rows), PRIVATE_FILE)
    kept = {out / site / row["subject"] for site, rows in result.cohorts.items() for row in rows}
    remove_stale(out, kept, result.cohorts)
    refused = table_text(REFUSED_COLUMNS, [asdict(item) for item in result.refused])
    write_text(out / REFUSED_TABLE, refused, PRIVATE_FILE)
    write_json(out / SUMMARY, _summary(result, options), PRIVATE_FILE)


def _provenance(options: PrepareOptions) -> dict[str, Any]:
    """Return what made the volumes, the sites and the splits, the same for every site."""
    versions = {"med_duallora": __version__, "python": platform.python_version()}
    return {
        "preparation": PREPARATION,
        "seed": options.seed,
        "official_splits": options.official_splits,
        "fractions": {} if options.official_splits else dict(options.fractions),
        "rotated_origin_shift": options.rotated_origin_shift,
        "site_columns": list(options.sites.columns),
        "simulated_sites": options.sites.n_simulated,
        "label_map": options.label_map,
        "versions": {**versions, "numpy": np.__version__, "nibabel": nibabel.__version__},
    }


def _summary(result: Preparation, options: PrepareOptions) -> dict[str, Any]:
    """Return what preparation.json records: enough to repeat the run and to account for every subject."""
    reasons = Counter(item.reason for item in result.refused)
    return {
        "synthetic": bool(result.cohorts) and result.synthetic == set(result.cohorts),
        **_provenance(options),
        "n_read": sum(result.n_read.values()),
        "n_read_by_dataset": result.n_read,
        "n_prepared": result.n_prepared,
        "n_refused": len(result.refused),
        "n_refused_by_reason": dict(sorted(reasons.items())),
        "sites": result.told_by,
        "cohorts": {site: split_counts(rows) for site, rows in result.cohorts.items()},
        "notes": result.notes,
    }


def split_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the number of subjects of each pathology in each split."""
    counts = Counter((row["split"], row["pathology"]) for row in rows)
    return {
        split: {pathology: n for (part, pathology), n in sorted(counts.items()) if part == split} for split in SPLITS
    }
