"""The card of a model: what it is, who trained it on what, how good it was, and what it is not for.

It is made from what the server knows: the adapter's manifest and, where there is one, the evaluation of its run. It
names sites as the federation does, and no path, subject or setting of any site's own configuration.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora import __version__
from med_duallora.adapter.methods import METHODS
from med_duallora.cohorts.origin import CITATIONS, Origin
from med_duallora.export.card_text import to_text
from med_duallora.measures import SCORES, VARIANTS
from med_duallora.report.content import banner
from med_duallora.report.finished import Evaluation, Run
from med_duallora.report.summary import by_site, macro, macro_interval, site_intervals
from med_duallora.server.artifact import INTENDED_USE
from med_duallora.settings.config import JobConfig
from med_duallora.site.kept_calibration import KeptCalibration
from med_duallora.support.files import write_json, write_text
from med_duallora.support.proportions import wilson_interval

CARD_VERSION = "1"
CARD_JSON, CARD_MARKDOWN = "model_card.json", "model_card.md"
INTERVAL = "95 %"
LIMITS = (
    "Two classes, no known heart disease (NOR) against any disease, from end-diastolic and end-systolic short-axis "
    "cine MRI; no other view, sequence or question.",
    "Scores were measured on the sites of this training, on few subjects each; they say nothing about other sites.",
    "The decision threshold is 0.5 unless a site chose its own on its own validation subjects.",
    "An adapter can carry information about the subjects it was trained on; there is no differential privacy.",
)
LICENCE = {
    "code": "Apache-2.0 (med-duallora)",
    "weights": "the terms of the data sets that the sites trained on apply to the adapters, and those of the "
    "backbone's weights to everything that holds them (CineMA's published weights: MIT)",
}


def card_of(
    manifest: Mapping[str, Any], run: Run | None = None, at_site: KeptCalibration | None = None
) -> dict[str, Any]:
    """Return a model's card as plain JSON values.

    Args:
        manifest: of the global adapter.
        run: the run that it came from, with the evaluation; None: the card has no scores and no word on the subjects.
        at_site: of a site's own model, what its evaluation left there: its card stays at the site as well.
    """
    job = run.job if run else JobConfig.from_dict(manifest["job"])
    origin = run.origin if run else None
    return {
        "card_version": CARD_VERSION,
        "name": f"Med-DualLoRA {manifest.get('experiment', job.experiment)}",
        "intended_use": INTENDED_USE,
        "banner": banner(origin),
        "model": _model(manifest, job),
        "training": _training(manifest, job),
        "data": _data(origin, run),
        "scores": _scores(run.evaluation) if run else {},
        "site_scores": _site_scores(at_site) if at_site else {},
        "limits": list(LIMITS),
        "licence": dict(LICENCE),
        "hashes": _hashes(manifest, run),
        "versions": dict(manifest.get("versions", {})),
        "written_by": f"med-duallora {__version__}",
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write a card as JSON and as Markdown into a folder (OSError: it cannot be written)."""
    write_json(folder / CARD_JSON, card)
    write_text(folder / CARD_MARKDOWN, to_text(card))


def _model(manifest: Mapping[str, Any], job: JobConfig) -> dict[str, Any]:
    method = manifest.get("method", job.method)
    return {
        "task": "disease (any) against none, from short-axis ED and ES frames",
        "backbone": manifest.get("backbone", job.backbone),
        "method": method,
        "method_summary": METHODS[method].summary if method in METHODS else "",
        "lora": job.to_dict()["lora"],
        "n_parameters_sent": manifest.get("n_parameters"),
    }


def _training(manifest: Mapping[str, Any], job: JobConfig) -> dict[str, Any]:
    round_index = manifest.get("round")
    return {
        "framework": "NVIDIA FLARE",
        "n_rounds_planned": manifest.get("n_rounds_planned", job.train.n_rounds),
        "round": None if round_index is None else round_index + 1,
        "sites_of_that_round": list(manifest.get("sites", [])),
        "n_rounds_by_site": dict(manifest.get("n_rounds_by_site", {})),
        "aggregation": job.aggregation or METHODS[job.method].aggregation,
        "settings": job.to_dict()["train"],
    }


def _data(origin: Origin | None, run: Run | None) -> dict[str, Any]:
    scores = run.evaluation.sites if run else {}
    counted = {
        site: {name: int(values[name]) for name in ("n_test_subjects", "n_positive", "n_negative") if name in values}
        for site, values in scores.items()
    }
    return {
        "phantoms": origin.phantoms if origin else "not stated",
        "datasets": {name: CITATIONS[name] for name in origin.datasets} if origin else {},
        "test_subjects_by_site": counted,
        "subjects_leave": "Images, labels and predictions stayed at the sites.",
    }


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores that the report shows: mean over the sites and by site, with intervals where they are known."""
    return {
        variant: {name: _score(evaluation, variant, name) for name, score in SCORES.items() if score.in_report}
        for variant in VARIANTS
    }


def _score(evaluation: Evaluation, variant: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": macro(evaluation, variant, name), "by_site": by_site(evaluation, variant, name)}
    if name == "balanced_accuracy":
        interval = macro_interval(evaluation, variant)
        found["interval"] = list(interval) if interval else None
        found["interval_by_site"] = {site: list(pair) for site, pair in site_intervals(evaluation, variant).items()}
        found["interval_level"] = INTERVAL
    return found


def _site_scores(kept: KeptCalibration) -> dict[str, Any]:
    """Return how one site's test subjects were classified at the site's own threshold, with intervals."""
    found = kept.test.counts
    parts = {"sensitivity": (found.hits, found.n_positive), "specificity": (found.rejections, found.n_negative)}
    shares = {
        name: {"value": right / n, "interval": list(wilson_interval(right, n)), "n_right": right, "n_subjects": n}
        for name, (right, n) in parts.items()
        if n
    }
    chosen = {"uses": VARIANTS[kept.chosen.variant].heading, "why": kept.chosen.why}
    about = {"site": kept.site, **chosen, "threshold": kept.calibration.threshold}
    return {**about, "interval_level": INTERVAL, **shares}


def _hashes(manifest: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    return {
        "adapter_sha256": manifest.get("sha256"),
        "backbone_sha256": manifest.get("backbone_sha256"),
        "contract_sha256": manifest.get("contract_sha256"),
        "job_file_sha256": run.job_sha256 if run else None,
    }
