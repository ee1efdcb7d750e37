"""``med-duallora fit-head``: a global adapter and a few labelled subjects become a model of a site without training."""

import argparse
from pathlib import Path

from med_duallora.commands.options import site_word, whole_number
from med_duallora.errors import ConfigError, InputError

DESCRIPTION = """\
Make a model of a federation's global adapter at a site that took no part in the training, or whose state is gone. The
classification head is fitted to labelled subjects of the site's own prepared cohort (its train split): a strongly
regularised logistic regression on what the head reads. Where the federation's sites share their head, it is corrected
instead of replaced. There is no local adapter. Temperature and threshold are fitted
to the validation subjects, and the test subjects are counted for the release gate.

OUT is a model file that `predict` and `export` take, for this account only: it was fitted to patients of the site and
stays there. Nothing is sent.

Research use only, not for diagnosis.
"""
MOST_SUBJECTS = 1_000_000


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "fit-head",
        help="a model from a global adapter and a few labelled subjects of a site that did not train",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--adapter",
        type=Path,
        required=True,
        metavar="FILE",
        help="the global adapter: adapter_best.safetensors or adapter_last.safetensors, its .json beside it",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the site's prepared cohort")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model file; nothing is replaced")
    parser.add_argument(
        "--k",
        type=whole_number(1, MOST_SUBJECTS),
        metavar="N",
        help="fit to N subjects of the train split, half of each class where there are as many (default: all of them)",
    )
    parser.add_argument("--site", metavar="NAME", help="the site's name (default: that of the cohort's folder)")
    parser.add_argument(
        "--site-config",
        type=Path,
        metavar="FILE",
        help="the site's configuration: backbone_checkpoint, device, n_threads, release and policy.backbone_sha256",
    )
    parser.add_argument(
        "--backbone-checkpoint",
        type=Path,
        metavar="FILE",
        help="the backbone of the federation (default: that of --site-config, else the shipped one)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fit the head, write the model and say how good it is here."""
    from med_duallora.cohorts.prepared import PreparedCohort
    from med_duallora.export.place import check_new
    from med_duallora.inference.saved import save_model
    from med_duallora.inference.without_training import fitted
    from med_duallora.server.artifact import load_adapter
    from med_duallora.site.received import ReceivedAdapter
    from med_duallora.support.folders import check_writable

    check_new(options.out)
    received = ReceivedAdapter.of(options.adapter, *load_adapter(options.adapter))
    word, cohort, site = site_word(options), PreparedCohort.read(options.data), _site_name(options)
    checkpoint = word.checkpoint_of(received)
    check_writable(options.out.parent)
    saved = fitted(received, site, cohort, checkpoint, k=options.k, device=word.device, floors=word.floors)
    save_model(saved, options.out)
    n = len(saved.state.reference["distances"])
    print(f"head fitted to {n} training subjects, global adapter of round {received.round_index + 1}")
    if received.head_policy != "local":
        print("The federation shared its head; this model has it, corrected by these subjects.")
    if saved.evaluation:
        counts = saved.evaluation.test
        print(
            f"test subjects, threshold {saved.calibration.threshold:.3g}: {counts.hits} of {counts.n_positive} "
            f"diseased found, {counts.rejections} of {counts.n_negative} normal recognised"
        )
    print(saved.gate.sentence)
    print(f"model (keep it at the site): {options.out}")
    print("Research use only, not for diagnosis.")
    return 0


def _site_name(options: argparse.Namespace) -> str:
    """Return whose model it will be; the name stands in results, pages and cards (InputError: it is none)."""
    from med_duallora.cohorts.site_names import check_site_name

    name: str = options.data.resolve().name if options.site is None else options.site
    try:
        check_site_name(name)
    except ConfigError as error:
        raise InputError(f"{error}, or give another name with --site") from error
    return name
