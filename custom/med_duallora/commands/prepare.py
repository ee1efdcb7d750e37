"""``med-duallora prepare``: raw cohorts in, one prepared cohort per site out."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.cohorts.readers import LAYOUTS
from med_duallora.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from med_duallora.cohorts.subject import RawSubject, Refusal
    from med_duallora.cohorts.vocabulary import Vocabulary

DESCRIPTION = """\
Read raw short-axis cine MRI (ED and ES) of one or more cohorts and write one prepared cohort per site:
OUT/SITE/cohort.csv and OUT/SITE/SUBJECT/SUBJECT_sax_{ed,es}.nii.gz, uint8, 1 x 1 x 10 mm, at most 192 x 192 in plane;
with segmentations (_gt) where the cohort has them. Images may be .nii.gz or .nii.

A site is a scanner vendor (siemens, philips, ge, canon, united-imaging, neusoft, other); with --site-column centre it
is a hospital, with --site-column vendor,centre every combination of both. One scan is one subject: where two subjects
share an image, in whatever file, order or data set, the second one is refused.

Each site is split into train, val and test (60/20/20, or as --split-percent says), stratified by class and pathology.
Every subject that is found is either prepared or listed in OUT/refused.csv with its reason. A second run redoes only
what changed.
"""

EPILOG = """\
Exit codes: 0 all subjects prepared (or --allow-refused), 1 a subject was refused or writing failed, 2 bad input.

The table for --table has the columns subject, ed, es, pathology (or label: 0 normal (NOR), 1 disease), vendor, centre
(paths relative to the table) and optionally ed_frame, es_frame, ed_segmentation, es_segmentation, segmentation_labels
(rv-myo-lv or lv-myo-rv), split, cine. It is CSV with commas, semicolons or tabs; in an optional cell NA, n/a, nan,
none, - and nothing all mean empty.

The table for --dicom-table has the columns subject (the study's folder: its path relative to DIR, or its name),
pathology or label, and optionally name (of the subject, instead of the folder's), vendor (else from the headers),
centre, ed_frame and es_frame (from 0; else the frames with the largest and smallest blood pool), split.

The file for --label-map is a CSV with the columns kind (pathology or vendor), text (what the cohort writes, in any
case), name (what it means here: see docs/vocabulary.md) and label (1 where name is a disease not listed there):
  kind,text,name,label
  pathology,no finding,NOR,
  pathology,HFpEF,HFPEF,1
  vendor,Hitachi,other,
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "prepare",
        help="raw cohorts -> one prepared cohort per site",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the prepared cohorts go (required)")
    parser.add_argument(
        "--table-template",
        type=Path,
        metavar="CSV",
        help="write an example of the table for --table (with --dicom DIR: that for --dicom-table, with a row per "
        "study), explain its columns, and do nothing else",
    )
    _add_source_arguments(parser)
    parser.add_argument(
        "--dicom-table", type=Path, metavar="CSV", help="diagnoses of the DICOM studies, and more (see below)"
    )
    parser.add_argument(
        "--label-map",
        type=Path,
        metavar="CSV",
        help="your own words for pathologies and vendors, beside those in docs/vocabulary.md (see below)",
    )
    _add_site_arguments(parser)
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="random seed of the split and of simulated sites (default: %(default)s)",
    )
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument(
        "--split-percent",
        type=_split,
        metavar="TRAIN/VAL/TEST",
        help="whole percent of each site's subjects (default: 60/20/20); a class of three or more has a subject in "
        "every split above 0",
    )
    splits.add_argument(
        "--official-splits",
        action="store_true",
        help="keep the cohorts' own splits; where there is no val (ACDC), a stratified quarter of train becomes val",
    )
    parser.add_argument(
        "--processes", type=_processes, default=None, metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument("--allow-refused", action="store_true", help="exit with 0 although subjects were refused")
    parser.add_argument(
        "--rotated-origin-shift",
        action="store_true",
        help="shift the resampling grid along the image axes, which is right in space but not what the published "
        "CineMA weights were trained on",
    )
    parser.set_defaults(run=run)


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_argument_group("sources, at least one")
    for layout in LAYOUTS:
        sources.add_argument(f"--{layout.name}", type=Path, metavar=layout.place, help=layout.help)
    sources.add_argument(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="DICOM: one study, or a folder per subject (docs/dicom.md); needs pip install 'med-duallora[dicom]'",
    )


def _add_site_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--site-column",
        metavar="COLUMN[,COLUMN]",
        help="of cohort.csv: one cohort per value or combination; vendor, centre or dataset (default: vendor)",
    )
    parser.add_argument(
        "--simulated-sites",
        type=int,
        metavar="N",
        help="deal all subjects out at random to N made-up sites, site-1 to site-N, alike in class and pathology; with "
        "--site-column those of each site that the column makes, such as siemens-1 to siemens-N",
    )


def _columns(options: argparse.Namespace) -> tuple[str, ...]:
    if options.site_column is None:
        return () if options.simulated_sites is not None else ("vendor",)
    return tuple(column.strip() for column in options.site_column.split(","))


def run(options: argparse.Namespace) -> int:
    """Run the command; see ``EPILOG`` for the exit code."""
    if options.table_template is not None:
        return _template(options.table_template, options.dicom)
    if options.out is None:
        raise InputError("--out is missing: say where the prepared cohorts go")
    from med_duallora.cohorts.prepare import prepare_cohorts
    from med_duallora.cohorts.prepare_summary import summary_lines
    from med_duallora.cohorts.prepare_tables import PrepareOptions
    from med_duallora.cohorts.site_names import Sites
    from med_duallora.cohorts.split import FRACTIONS

    sites = Sites(_columns(options), options.simulated_sites)
    words = _words(options.label_map)
    settings = PrepareOptions(
        seed=options.seed,
        fractions=options.split_percent or FRACTIONS,
        official_splits=options.official_splits,
        rotated_origin_shift=options.rotated_origin_shift,
        label_map=words.added(),
        sites=sites,
        n_processes=options.processes or len(os.sched_getaffinity(0)),
    )
    with ExitStack() as temporary:
        subjects, refused, notes = _read(options, words, temporary)
        result = prepare_cohorts(options.out, subjects, refused, settings, notes)
    print("\n".join(summary_lines(result, options.out, settings)))
    if not result.n_prepared:
        print("No subject could be prepared.")
        return 1
    if result.refused and not options.allow_refused:
        print("Exit code 1 because of the refused subjects; --allow-refused accepts them.")
        return 1
    return 0


def _template(path: Path, dicom: Path | None) -> int:
    if dicom is not None:
        from med_duallora.cohorts.dicom.template import write_dicom_template

        lines = write_dicom_template(path, _dicom_folder(dicom))
    else:
        from med_duallora.cohorts.table_template import explanation, write_template

        write_template(path)
        lines = explanation(path)
    print("\n".join(lines))
    return 0


def _dicom_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"--dicom {folder} is not a folder")
    return folder


def _words(label_map: Path | None) -> "Vocabulary":
    from med_duallora.cohorts.labelmap import read_label_map
    from med_duallora.cohorts.vocabulary import STANDARD

    return STANDARD if label_map is None else read_label_map(label_map)


def _read(
    options: argparse.Namespace, words: "Vocabulary", temporary: ExitStack
) -> "tuple[list[RawSubject], list[Refusal], list[str]]":
    """Read all sources, with notes on them; what they hold for a while is let go with ``temporary``."""
    given = [layout for layout in LAYOUTS if getattr(options, layout.name) is not None]
    if not given and options.dicom is None:
        raise InputError(f"give at least one source: {', '.join(f'--{it.name}' for it in LAYOUTS)} or --dicom")
    if options.dicom_table is not None and options.dicom is None:
        raise InputError("--dicom-table describes the studies of --dicom DIR, which is not given")
    subjects: list[RawSubject] = []
    refused: list[Refusal] = []
    notes: list[str] = []
    for layout in given:
        place = getattr(options, layout.name)
        if not place.exists():
            raise InputError(f"--{layout.name} {place} does not exist")
        found, unusable = layout.read(place, words)
        subjects += found
        refused += unusable
    if options.dicom is not None:
        from med_duallora.cohorts.dicom.reader import dicom_subjects

        studies = dicom_subjects(_dicom_folder(options.dicom), options.dicom_table, options.out, words)
        of_dicom = temporary.enter_context(studies)
        subjects += of_dicom.subjects
        refused += of_dicom.refused
        notes += of_dicom.notes
    return subjects, refused, notes


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number between 0 and 2**31 - 1")
    return int(text)


def _split(text: str) -> "Mapping[str, float]":
    from med_duallora.cohorts.split import fractions_of

    try:
        return fractions_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _processes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number between 1 and 1024")
    return int(text)
