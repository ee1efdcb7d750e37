"""``med-duallora predict``: what a trained model says of new scans, at the site that it belongs to."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from med_duallora.commands.options import SiteWord, add_floor_arguments, floors_of, site_word
from med_duallora.errors import InputError

if TYPE_CHECKING:
    from med_duallora.inference.batch import Outcome
    from med_duallora.inference.model import TrainedModel
    from med_duallora.inference.scan import ScanSource

DESCRIPTION = """\
Say what a site's trained model (backbone, both adapters, head) thinks of scans that need no label: the probability of
disease, the decision at the site's threshold, and what speaks against trusting it: a scan unlike the training subjects,
voxel size or number of slices outside their range, a heart that was not found with confidence. Raw scans are prepared
as `med-duallora prepare` does. OUT/predictions.csv and OUT/predictions.json, readable by this account only.

A second start goes on: a scan whose files have not changed is not predicted again.

A model that does not pass its site's release gate, was never evaluated there or was trained on since says so and
predicts only with --ungated.

Research use only, not for diagnosis.
"""

EPILOG = """\
Exit codes: 0 done, 1 failed, 2 bad input, also where one of the scans could not be read or prepared; the others are
predicted all the same.
"""
PAGE_FILE = "predictions.html"
MANY = 20
"""Scans, above which the terminal shows only those that could not be predicted; the files hold all."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "predict",
        help="what a site's trained model says of new scans",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = parser.add_argument_group("model, one of them").add_mutually_exclusive_group(required=True)
    models.add_argument(
        "--model",
        type=Path,
        metavar="PATH",
        help="the site's STATE_DIR/EXPERIMENT (its newest run), one run's folder in it, or a model file",
    )
    models.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE",
        help="a global adapter whose job shares the head, its .json beside it, for 8 scans or more; needs --ungated, "
        "because nothing says how good it is here. Where the head stays at the sites: `fit-head`",
    )
    scans = parser.add_argument_group("scans, at least one")
    scans.add_argument(
        "--scan",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="4-D NIfTI file, NIfTI file of ED (with --es), folder of one DICOM study or of a prepared subject; "
        "repeatable",
    )
    scans.add_argument("--es", type=Path, metavar="FILE", help="NIfTI file of ES, where --scan is one of ED")
    scans.add_argument("--data", type=Path, metavar="DIR", help="a prepared cohort: all of its subjects")
    scans.add_argument("--split", choices=("train", "val", "test"), help="of the cohort: only this split")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--site-config",
        type=Path,
        metavar="FILE",
        help="the site's configuration: its backbone_checkpoint, device and n_threads are used",
    )
    parser.add_argument(
        "--backbone-checkpoint",
        type=Path,
        metavar="FILE",
        help="the backbone that the model was trained on (default: that of --site-config, else the shipped one)",
    )
    parser.add_argument("--ungated", action="store_true", help="predict although the model is not released")
    add_floor_arguments(parser)
    parser.add_argument(
        "--page",
        action="store_true",
        help="also write OUT/predictions.html: pictures of the first scans, and how the probability changes when parts "
        "of them are blanked, which takes 37 predictions each",
    )
    parser.add_argument("--fresh", action="store_true", help="replace the results that are there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict, and say where the results are."""
    from med_duallora.inference.batch import CSV_FILE, predict_batch

    sources = _sources(options)
    model = _model(options, sources)
    gate = model.saved.gate
    if not (gate.passed or options.ungated):
        raise InputError(gate.sentence)
    outcome = predict_batch(model, sources, options.out, options.fresh)
    print("\n".join(_lines(outcome)))
    n_done = len(outcome.rows) - len(outcome.refused)
    earlier = f" ({outcome.n_earlier} of them earlier)" if outcome.n_earlier else ""
    print(f"{n_done} predicted{earlier}, {len(outcome.refused)} refused: {options.out / CSV_FILE}")
    if options.page and n_done:
        print(f"page (with images of the scans; keep it at the site): {_page(options.out, model, sources, outcome)}")
    if not gate.passed:
        print(f"This model is not released. {gate.sentence}")
    print("Research use only, not for diagnosis.")
    return InputError.exit_code if outcome.refused else 0


def _sources(options: argparse.Namespace) -> "list[ScanSource]":
    from med_duallora.cohorts.prepared import PreparedCohort
    from med_duallora.inference.scan import ScanSource

    if not options.scan and options.data is None:
        raise InputError("give at least one --scan, or a prepared cohort with --data")
    if options.es is not None and len(options.scan) != 1:
        raise InputError(f"--es belongs to one --scan, and there are {len(options.scan)}")
    if options.split and options.data is None:
        raise InputError("--split is of the cohort of --data, which is not given")
    found = [ScanSource(path, options.es) for path in options.scan]
    if options.data is not None:
        cohort = PreparedCohort.read(options.data)
        subjects = cohort.split(options.split) if options.split else cohort.subjects
        found += [ScanSource(subject.ed_path.parent, subject=subject) for subject in subjects]
    if not found:
        raise InputError(f"{options.data} has no subject in the split {options.split}")
    return found


def _model(options: argparse.Namespace, sources: "list[ScanSource]") -> "TrainedModel":
    from med_duallora.inference.model import load_model

    word = site_word(options)
    if options.adapter:
        model = _global(options, word, sources)
    else:
        model = load_model(options.model, backbone_checkpoint=word.checkpoint, device=word.device)
    model.saved = model.saved.under(floors_of(options).raised(word.floors))
    return model


def _global(options: argparse.Namespace, word: SiteWord, sources: "list[ScanSource]") -> "TrainedModel":
    from med_duallora.inference.gate import gate_of_kept
    from med_duallora.inference.model import TrainedModel
    from med_duallora.inference.without_training import shared
    from med_duallora.server.artifact import load_adapter
    from med_duallora.site.received import ReceivedAdapter

    received = ReceivedAdapter.of(options.adapter, *load_adapter(options.adapter))
    checkpoint = word.checkpoint_of(received)
    # nobody evaluated it here; the scans need not be read to find that out
    gate = gate_of_kept(None, is_of_this_state=False)
    if not options.ungated and received.head_policy != "local":
        raise InputError(gate.sentence)
    saved = shared(received, sources, checkpoint, word.device)
    print(f"{saved.remark}.", flush=True)
    return TrainedModel(saved, checkpoint, word.device)


def _page(out: Path, model: "TrainedModel", sources: "list[ScanSource]", outcome: "Outcome") -> Path:
    """Write the page of predictions, readable by this account alone, and return its path."""
    from med_duallora.report.html import to_html
    from med_duallora.report.predicted import page_of
    from med_duallora.support.files import write_text

    target = out / PAGE_FILE
    write_text(target, to_html(page_of(model, sources, outcome.rows)), 0o600)
    return target


def _lines(outcome: "Outcome") -> list[str]:
    """Return what the terminal shows of the scans."""
    shown = outcome.rows if len(outcome.rows) <= MANY else outcome.refused
    return [line for row in shown for line in _of_row(row)]


def _of_row(row: dict[str, Any]) -> list[str]:
    if row["refused"]:
        return [f"{row['scan']}: refused: {row['refused']}"]
    against = row["against_trust"] or ["nothing that is looked at speaks against trusting it"]
    first = f"{row['scan']}: probability of disease {row['probability']:.3f}, decision {row['decision']}"
    return [f"{first} (threshold {row['threshold']:.3g})", *(f"  - {text}" for text in against)]
