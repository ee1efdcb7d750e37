"""Cut one prepared cohort of real patients into a federation that ``med-duallora study`` can be run on.

    python benchmarks/patient_sites.py --data PATIENTS --out OUT --by referral|acquisition [--partition 0] [--scanners]
        [--n-sites 4] [--alpha 1.0] [--n-train 16]

PATIENTS holds one prepared cohort. Every subject goes to exactly one site. Sites differ by one subject at most, and
each has its share of the healthy ones. No hospital is behind a site.

``--by referral``: sites differ in who is sent to them. For every disease the sites' shares are drawn from a Dirichlet
distribution (``--alpha``: the lower, the more they differ). Patients then come in random order, and each goes to a
site drawn by these shares among those that are not full yet, so that who comes last has less of a choice.

``--by acquisition``: sites differ in how finely was scanned. Healthy and ill subjects are each ordered by the volume
of a voxel of the original scan (spacing_x times spacing_y times spacing_z in cohort.csv), and cut into groups of equal
size, finest first. ``--partition`` only decides between scans of the same voxel volume.

``--scanners`` gives every site one vendor of the phantoms' table (``cohorts.phantom``), in the table's order, and lays
its look over the real images, on top of what the real scanner did: contrast, blur, fall-off of the coil, banding and
noise, drawn per subject. Tissues are not known in a real image, so that what the phantoms paint by tissue (fat, lung,
dark fat-water borders) follows the contrast alone, and the coil sits at its angle to the image's axes. Such hearts are
real, and their scanner is simulated; the column ``remarks`` and federation.json say so. Without this option the sites'
volumes are links to those of PATIENTS, which must stay.

Research use only, not for diagnosis.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from med_duallora import __version__
from med_duallora.cohorts.classes import MIN_PER_CLASS, NAMES, class_sizes
from med_duallora.cohorts.csvfile import table_text
from med_duallora.cohorts.nifti import read_nifti, write_nifti
from med_duallora.cohorts.origin import CITATIONS
from med_duallora.cohorts.phantom.appearance import draw_appearance
from med_duallora.cohorts.phantom.parameters import VENDOR_APPEARANCE, VENDORS
from med_duallora.cohorts.phantom.rescan import USED, contrast, rescanned
from med_duallora.cohorts.prepare_tables import split_counts
from med_duallora.cohorts.prepared import COHORT_TABLE, COLUMNS, REMARK_SEPARATOR, PreparedSubject, load_volume
from med_duallora.cohorts.provenance import PREPARATION_FILE, is_synthetic
from med_duallora.commands.options import above_zero, whole_number
from med_duallora.errors import CohortError, ConfigError, MedDualLoRAError
from med_duallora.pretraining.data import find_cohorts
from med_duallora.study.splits import FRAMES, Dealt, Row, n_trained, rows_of, write
from med_duallora.support.files import PARTIAL, sentence, sha256_of_file, write_json, write_text
from med_duallora.support.folders import replace_folder
from med_duallora.support.private import PRIVATE_FILE, PRIVATE_FOLDER, private_folder
from med_duallora.support.progress import track
from med_duallora.support.seeds import generator

REFERRAL, ACQUISITION = "referral", "acquisition"
PREFIX = {REFERRAL: "site", ACQUISITION: "res"}
RECORD = "federation.json"
SCANNED = {False: "real heart, simulated scanner", True: "phantom, a second simulated scanner"}
"""What is said of an image with another look, by whether its subject is a phantom."""


def by_referral(subjects: Sequence[PreparedSubject], n_sites: int, partition: int, alpha: float) -> list[int]:
    """Return the site of every subject, from 0, where each disease has other shares at each site."""
    stream = generator(partition, "patient-sites", REFERRAL)
    n_healthy, room = _sizes(subjects, n_sites, int(stream.integers(n_sites)))
    mixed = _mixed(subjects, stream)
    shares = {
        disease: stream.dirichlet([alpha] * n_sites) for disease in sorted({subjects[i].pathology for i in mixed})
    }
    sites = dict(zip([i for i in mixed if not subjects[i].label], np.repeat(range(n_sites), n_healthy), strict=True))
    for i in mixed:
        if subjects[i].label:
            # a share of a small alpha can be 0 in floating point, and such a site may be the only one with room
            share = np.maximum(shares[subjects[i].pathology], np.finfo(float).tiny) * (np.array(room) > 0)
            sites[i] = stream.choice(n_sites, p=share / share.sum())
            room[sites[i]] -= 1
    return [int(sites[i]) for i in range(len(subjects))]


def by_acquisition(subjects: Sequence[PreparedSubject], n_sites: int, partition: int) -> list[int]:
    """Return the site of every subject, from 0, by the voxel volume of its scan (CohortError: one has none)."""
    if without := sum(subject.spacing is None for subject in subjects):
        raise CohortError(f"{without} of {len(subjects)} subjects have no spacing_x, _y and _z in {COHORT_TABLE}")
    mixed = _mixed(subjects, generator(partition, "patient-sites", ACQUISITION))
    finest_first = sorted(mixed, key=lambda i: float(np.prod(subjects[i].spacing)))
    sites = {}
    for label, sizes in enumerate(_sizes(subjects, n_sites, 0)):
        members = [i for i in finest_first if subjects[i].label == label]
        sites |= dict(zip(members, np.repeat(range(n_sites), sizes), strict=True))
    return [int(sites[i]) for i in range(len(subjects))]


def _mixed(subjects: Sequence[PreparedSubject], stream: np.random.Generator) -> list[int]:
    """Return the places of all subjects in random order, the same whatever the table's order."""
    named = sorted(range(len(subjects)), key=lambda i: subjects[i].subject)
    return [named[place] for place in stream.permutation(len(named))]


def _sizes(subjects: Sequence[PreparedSubject], n_sites: int, first: int) -> tuple[list[int], list[int]]:
    """Return the healthy and the ill subjects of every site: dealt like cards from site ``first`` on."""
    n_healthy, n_ill = class_sizes(subjects)
    least = n_sites * (MIN_PER_CLASS + 1)
    for n, name in zip((n_healthy, n_ill), NAMES, strict=True):
        if n < least:
            raise CohortError(
                f"there are {n} {name} subjects, and {n_sites} sites need {least}: {MIN_PER_CLASS} to train on and one "
                "to test at each; lower --n-sites"
            )
    places = np.arange(n_sites)
    healthy, ill = (
        (n // n_sites + ((places - start) % n_sites < n % n_sites)).tolist()
        for n, start in ((n_healthy, first), (n_ill, first + n_healthy))
    )
    return healthy, ill


def write_rescanned(subject: PreparedSubject, row: Row, vendor: str, target: Path, partition: int) -> Row:
    """Write a subject's images with a look of ``vendor`` into a site's folder, and return its row there."""
    if subject.vendor not in VENDOR_APPEARANCE:
        raise CohortError(f"--scanners starts from the look of {', '.join(VENDORS)}, not from {subject.vendor!r}")
    own, purpose = VENDOR_APPEARANCE[subject.vendor], ("simulated-scanner", vendor, subject.subject)
    look = draw_appearance(generator(partition, *purpose, "look"), VENDOR_APPEARANCE[vendor])
    volume = rescanned(load_volume(subject), look, own, generator(partition, *purpose, "noise"))
    folder = target / subject.subject
    private_folder(folder)
    for phase, frame, source in zip(FRAMES, volume, (subject.ed_path, subject.es_path), strict=True):
        write_nifti(folder / f"{subject.subject}_sax_{phase}.nii.gz", frame, read_nifti(source).affine)
    # with what was drawn, so that other images have another table, which is what a study knows a cohort by
    remark = (
        f"{SCANNED[is_synthetic(subject.ed_path)]}: {vendor} over {subject.vendor} "
        f"(exponent {contrast(look, own):.3f}, coil {look.coil:.3f} at {look.coil_angle:.2f} rad, SNR {look.snr:.1f}, "
        f"blur {look.blur_mm:.2f} mm, banding {look.banding[0]:.2f})"
    )
    remarks = [remark, *filter(None, [row.get("remarks", "")])]
    return {**row, "vendor": vendor, "remarks": REMARK_SEPARATOR.join(remarks)}


def cut(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Write the federation, whole or not at all, and return what its table says of every site.

    Raises:
        CohortError: PATIENTS is not one prepared cohort, or its subjects do not do.
        ConfigError: OUT has content, or there are more sites than simulated scanners.
    """
    if options.out.is_symlink():
        raise ConfigError(f"--out {options.out} is a link; give the folder itself")
    options.out = options.out.resolve()
    if options.data.resolve() in (options.out, *options.out.parents):
        raise ConfigError(f"--out {options.out} lies in --data {options.data}; choose another place")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ConfigError(f"--out {options.out} is not an empty folder; choose another place")
    if options.scanners and options.n_sites > len(VENDORS):
        raise ConfigError(f"--scanners has {len(VENDORS)} vendors, one a site: {', '.join(VENDORS)}; lower --n-sites")
    cohorts = find_cohorts(options.data)
    if len(cohorts) > 1:
        several = ", ".join(cohort.directory.name for cohort in cohorts)
        raise CohortError(f"--data {options.data} holds several prepared cohorts; give one of {several}")
    source, subjects = cohorts[0].directory, cohorts[0].subjects
    if options.by == REFERRAL:
        places = by_referral(subjects, options.n_sites, options.partition, options.alpha)
    else:
        places = by_acquisition(subjects, options.n_sites, options.partition)
    names = [f"{PREFIX[options.by]}-{number}" for number in range(1, options.n_sites + 1)]
    found = {
        name: [subject for subject, place in zip(subjects, places, strict=True) if place == number]
        for number, name in enumerate(names)
    }
    summaries = [_summary(name, members, options.n_train) for name, members in found.items()]
    vendors = dict(zip(names, VENDORS, strict=False)) if options.scanners else {}
    private_folder(options.out.parent)
    fresh = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=options.out.parent))
    try:
        fresh.chmod(PRIVATE_FOLDER)
        for name, members in found.items():
            _write_site(source, members, fresh / name, vendors.get(name), options.partition)
        write_json(fresh / RECORD, _record(options, source, subjects, vendors, summaries), PRIVATE_FILE)
        replace_folder(fresh, options.out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return summaries


def _write_site(
    source: Path, members: Sequence[PreparedSubject], target: Path, vendor: str | None, partition: int
) -> None:
    of_source = {row["subject"]: row for row in rows_of(source)}
    rows = [of_source[subject.subject] for subject in members]
    if vendor is None:
        write([Dealt(source, tuple(rows))], target)
    else:
        both = zip(members, rows, strict=True)
        rows = [
            write_rescanned(subject, row, vendor, target, partition)
            for subject, row in track(both, target.name, len(rows))
        ]
        write_text(target / COHORT_TABLE, table_text(COLUMNS, rows), PRIVATE_FILE)
    origin = {"synthetic": is_synthetic(source), "splits": split_counts(rows), "federation": f"../{RECORD}"}
    write_json(target / PREPARATION_FILE, origin, PRIVATE_FILE)


def _summary(name: str, members: Sequence[PreparedSubject], n_train: int) -> dict[str, Any]:
    """Return what the table says of a site (CohortError: a study with ``n_train`` could not deal its subjects)."""
    for n, said in zip(class_sizes(members), NAMES, strict=True):
        if n_trained(n, len(members), n_train) >= n:
            raise CohortError(f"{name} would train on all of its {n} {said} subjects and test none; lower --n-train")
    spacings = [subject.spacing for subject in members if subject.spacing is not None]
    return {
        "site": name,
        "n": len(members),
        "healthy": class_sizes(members)[0],
        "diseases": dict(sorted(Counter(subject.pathology for subject in members if subject.label).items())),
        "in_plane_mm": _spread([float(np.sqrt(x * y)) for x, y, _ in spacings]),
        "slices_mm": _spread([z for *_, z in spacings]),
    }


def _spread(values: list[float]) -> list[float]:
    """Return median, lowest and highest value; nothing of nothing."""
    return [round(value, 3) for value in (median(values), min(values), max(values))] if values else []


def _record(
    options: argparse.Namespace,
    source: Path,
    subjects: Sequence[PreparedSubject],
    vendors: dict[str, str],
    summaries: list[dict[str, Any]],
) -> dict[str, Any]:
    phantoms = is_synthetic(source)
    tables = {name: asdict(VENDOR_APPEARANCE[name]) for name in {*vendors.values(), *(s.vendor for s in subjects)}}
    scanners = {
        "what": SCANNED[phantoms],
        "vendor_by_site": vendors,
        "tables": {vendor: {name: table[name] for name in USED} for vendor, table in sorted(tables.items())},
    }
    datasets, people = {subject.dataset for subject in subjects}, "phantoms" if phantoms else "real patients"
    return {
        "what": f"{people} of one cohort, cut into simulated sites; not for diagnosis",
        "med_duallora": __version__,
        **{key: getattr(options, key) for key in ("by", "partition", "n_sites", "n_train")},
        "alpha": options.alpha if options.by == REFERRAL else None,
        "source": {"cohort": source.name, "table_sha256": sha256_of_file(source / COHORT_TABLE), "n": len(subjects)},
        "cite": [] if phantoms else [text for name, text in CITATIONS.items() if name in datasets],
        "scanners": scanners if vendors else None,
        "sites": summaries,
    }


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the sites as a table in Markdown."""
    diseases = sorted({disease for site in summaries for disease in site["diseases"]})
    heads = ["site", "n", "healthy", *diseases, "in plane, mm: median (range)", "slices, mm: median (range)"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for site in summaries:
        cells = [site["site"], site["n"], site["healthy"], *(site["diseases"].get(disease, 0) for disease in diseases)]
        ends = [site[key] for key in ("in_plane_mm", "slices_mm")]
        cells += ["{:g} ({:g} to {:g})".format(*end) if end else "unknown" for end in ends]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut the cohort, print a table and return the exit code; what was wrong becomes one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        print(table(cut(options)))
    except (MedDualLoRAError, OSError) as error:
        print(f"patient_sites: {sentence(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return getattr(error, "exit_code", MedDualLoRAError.exit_code)
    print(f"Written to {options.out}. Research use only, not for diagnosis.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--by", choices=tuple(PREFIX), required=True, help="in what the sites differ")
    parser.add_argument("--partition", type=whole_number(0, 1_000_000), default=0, help="seed (default: 0)")
    parser.add_argument("--scanners", action="store_true", help="another simulated scanner at each site")
    parser.add_argument("--n-sites", type=whole_number(2, 100), default=4, help="default: 4")
    parser.add_argument("--alpha", type=above_zero(1e6), default=1.0, help="of the Dirichlet shares (default: 1.0)")
    parser.add_argument("--n-train", type=whole_number(6, 1_000_000), default=16, help="of the study (default: 16)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
