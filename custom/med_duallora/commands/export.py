"""``med-duallora export``: a trained model, or one prediction of it, in the files of other tools."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from med_duallora.errors import InputError

if TYPE_CHECKING:
    from med_duallora.inference.model import TrainedModel
    from med_duallora.settings.config import SiteConfig

DESCRIPTION = """\
Write a trained model, or one prediction, for another tool. Each form has its own source:

  --merged FILE        a CineMA checkpoint (safetensors), adapters and head folded in   --model, --site-config
  --monai-bundle DIR   a bundle that `python -m monai.bundle run` runs                  --model, --site-config
  --peft DIR           Hugging Face PEFT adapters: a site's                             --model, --site-config
                       or the global one alone                                          --adapter
  --card DIR           a model card, Markdown and JSON                                  --run-dir or --adapter
  --dicom-sr FILE      a DICOM structured report (TID 1500) of one prediction           --predictions, --dicom

What is made of --model holds what never leaves the site: its local adapter, its head and the head's statistics. It is
written only with --stays-at-site, by which you say that the file stays at the site, or where policy.model_leaves of
the site configuration allows it; the site's ledger gets a line either way. A model below a release floor of the site
configuration is written only with --ungated, and its card says so.

Research use only, not for diagnosis.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="a trained model or a prediction for other tools: CineMA, PEFT, MONAI, DICOM, a model card",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forms = parser.add_argument_group("forms, one of them").add_mutually_exclusive_group(required=True)
    forms.add_argument("--merged", type=Path, metavar="FILE", help="CineMA checkpoint")
    forms.add_argument("--monai-bundle", type=Path, metavar="DIR", help="MONAI bundle")
    forms.add_argument("--peft", type=Path, metavar="DIR", help="PEFT adapters")
    forms.add_argument("--card", type=Path, metavar="DIR", help="model card")
    forms.add_argument("--dicom-sr", type=Path, metavar="FILE", help="DICOM structured report")
    sources = parser.add_argument_group("sources")
    sources.add_argument(
        "--model", type=Path, metavar="PATH", help="a site's STATE_DIR/EXPERIMENT, one run's folder in it, or a file"
    )
    sources.add_argument(
        "--site-config", type=Path, metavar="FILE", help="the site's configuration: policy, ledger, backbone"
    )
    sources.add_argument("--stays-at-site", action="store_true", help="the file of the site's own model stays here")
    sources.add_argument("--ungated", action="store_true", help="export the site's model although it is not released")
    sources.add_argument(
        "--backbone-checkpoint", type=Path, metavar="FILE", help="instead of that of the site configuration"
    )
    sources.add_argument(
        "--adapter", type=Path, metavar="FILE", help="a global adapter: adapter_best.safetensors, its .json beside it"
    )
    sources.add_argument("--run-dir", type=Path, metavar="DIR", help="a finished run: what `report` reads")
    sources.add_argument("--predictions", type=Path, metavar="FILE", help="predictions.json of `predict`")
    sources.add_argument("--dicom", type=Path, metavar="DIR", help="the DICOM study that was predicted")
    parser.set_defaults(run=run)


FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "merged": (("model", "site_config"),),
    "monai_bundle": (("model", "site_config"),),
    "peft": (("model", "site_config"), ("adapter",)),
    "card": (("run_dir",), ("adapter",)),
    "dicom_sr": (("predictions", "dicom"),),
}
"""The sources of each form: one of these groups, whole."""
SOURCES = ("model", "site_config", "adapter", "run_dir", "predictions", "dicom")


def run(options: argparse.Namespace) -> int:
    """Write the form that was asked for, and say where it is."""
    form = next(name for name in FORMS if getattr(options, name) is not None)
    _check_sources(form, options)
    target: Path = getattr(options, form)
    writers: dict[str, Callable[[Path, argparse.Namespace], None]] = {
        "merged": _merged,
        "monai_bundle": _bundle,
        "peft": _peft,
        "card": _card,
        "dicom_sr": _dicom,
    }
    writers[form](target, options)
    print(f"{_option(form)[2:]}: {target}")
    print("Research use only, not for diagnosis.")
    return 0


def _check_sources(form: str, options: argparse.Namespace) -> None:
    given = {name for name in SOURCES if getattr(options, name) is not None}
    if given in [set(group) for group in FORMS[form]]:
        return
    groups = " or ".join(" and ".join(map(_option, group)) for group in FORMS[form])
    raise InputError(f"{_option(form)} is made from {groups}, but there is {_listed(given)}")


def _listed(given: set[str]) -> str:
    return " and ".join(_option(name) for name in SOURCES if name in given) or "neither"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _merged(target: Path, options: argparse.Namespace) -> None:
    from med_duallora import __version__
    from med_duallora.export.merged import write_merged
    from med_duallora.export.place import check_new
    from med_duallora.server.artifact import INTENDED_USE

    check_new(target)
    model, config = _site_model(options)
    _permit(model, config, "merged checkpoint", options)
    facts = {"intended_use": INTENDED_USE, "written_by": f"med-duallora {__version__}"}
    write_merged(target, model.network, {**facts, "model_sha256": model.saved.sha256})


def _bundle(target: Path, options: argparse.Namespace) -> None:
    from med_duallora.export.bundle import write_bundle
    from med_duallora.export.place import check_free, whole_folder

    check_free(target)
    model, config = _site_model(options)
    _permit(model, config, "MONAI bundle", options)
    with whole_folder(target, private=True) as folder:
        threshold = model.saved.calibration.threshold
        write_bundle(folder, model.network, model.saved.job, threshold, _site_card(model))


def _peft(target: Path, options: argparse.Namespace) -> None:
    from med_duallora.export.card import card_of
    from med_duallora.export.card_text import to_text
    from med_duallora.export.peft import global_pairs, write_global, write_site
    from med_duallora.export.place import check_free, whole_folder
    from med_duallora.server.artifact import load_adapter
    from med_duallora.settings.config import JobConfig

    check_free(target)
    if options.adapter:
        tensors, manifest = load_adapter(options.adapter)
        job = JobConfig.from_dict(_job_of(manifest, options.adapter))
        pairs = global_pairs(job, tensors)
        with whole_folder(target, private=False) as folder:
            write_global(folder, job, pairs, to_text(card_of(manifest)))
        return
    model, config = _site_model(options)
    _permit(model, config, "PEFT adapters", options)
    with whole_folder(target, private=True) as folder:
        write_site(folder, model.saved.job, model.network, to_text(_site_card(model)))


def _card(target: Path, options: argparse.Namespace) -> None:
    from med_duallora.export.card import card_of, write_card
    from med_duallora.export.place import whole_folder
    from med_duallora.report import read_run
    from med_duallora.server.artifact import load_adapter

    if options.run_dir:
        found = read_run(options.run_dir)
        card = card_of(found.manifest, found)
    else:
        manifest = load_adapter(options.adapter)[1]
        _job_of(manifest, options.adapter)
        card = card_of(manifest)
    with whole_folder(target, private=False) as folder:
        write_card(folder, card)


def _dicom(target: Path, options: argparse.Namespace) -> None:
    from med_duallora.export.dicom_report import cine_headers, need_highdicom, write_report
    from med_duallora.export.place import check_new
    from med_duallora.export.predicted import finding_of

    check_new(target)
    need_highdicom()
    finding, model = finding_of(options.predictions, options.dicom)
    write_report(target, finding, cine_headers(options.dicom), model)


def _site_model(options: argparse.Namespace) -> "tuple[TrainedModel, SiteConfig]":
    from med_duallora.inference.model import load_model
    from med_duallora.settings.config import SiteConfig

    config = SiteConfig.from_file(options.site_config)
    checkpoint = options.backbone_checkpoint or config.backbone_checkpoint
    model = load_model(options.model, backbone_checkpoint=checkpoint, device="cpu")
    model.saved = model.saved.under(config.release)
    gate = model.saved.gate
    if not (gate.passed or options.ungated):
        raise InputError(gate.sentence)
    if not gate.passed:
        print(f"This model is not released. {gate.sentence}")
    return model, config


def _permit(model: "TrainedModel", config: "SiteConfig", form: str, options: argparse.Namespace) -> None:
    from med_duallora.export.permission import permit

    permit(model.saved.site, config, model.network, form, options.stays_at_site)


def _site_card(model: "TrainedModel") -> dict[str, Any]:
    from med_duallora.export.card import card_of

    saved = model.saved
    facts = {"experiment": saved.job.experiment, "round": saved.state.round_index, "sites": [saved.site]}
    hashes = {"backbone_sha256": saved.backbone_sha256, "sha256": saved.sha256}
    evaluation = saved.evaluation if saved.is_evaluated else None
    card = card_of({"job": saved.job.to_dict(), **facts, **hashes}, at_site=evaluation)
    return {**card, "limits": [saved.gate.sentence, *card["limits"]]}


def _job_of(manifest: dict[str, Any], adapter: Path) -> dict[str, Any]:
    from med_duallora.errors import ArtifactError

    if not isinstance(manifest.get("job"), dict):
        raise ArtifactError(f"the manifest of {adapter} does not hold the settings of its job; train again")
    return dict(manifest["job"])
