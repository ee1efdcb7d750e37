"""A site's model as a MONAI bundle: a folder with weights, a configuration that MONAI runs, metadata and a card.

    python -m monai.bundle run --config_file configs/inference.json --scan PATH

The weights are those of a merged checkpoint, a safetensors file: nothing is pickled. The configuration names classes of
this package, which has to be installed where the bundle runs.
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora import __version__
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.backbone import BackboneConfig
from med_duallora.export.card import CARD_JSON
from med_duallora.export.card_text import to_text
from med_duallora.export.merged import write_merged
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import write_json, write_text

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
WEIGHTS_FILE, CONFIG_FILE, METADATA_FILE = "models/model.safetensors", "configs/inference.json", "configs/metadata.json"
PARTS = "med_duallora.export.monai_parts"
BUNDLE_VERSION = "1.0.0"


def write_bundle(
    folder: Path, network: DualLoRAModel, job: JobConfig, threshold: float, card: Mapping[str, Any]
) -> None:
    """Write the bundle into a folder; every file is readable by this account alone.

    Args:
        folder: for the bundle; its name is the bundle's.
        network: the trained model.
        job: that trained it.
        threshold: of the site, from which on a probability is called disease.
        card: see ``card.card_of``.

    Raises:
        OSError: the place cannot be written.
    """
    facts = {"intended_use": card["intended_use"], "written_by": f"med-duallora {__version__}"}
    write_merged(folder / WEIGHTS_FILE, network, facts)
    write_json(folder / CONFIG_FILE, inference_config(job.backbone, threshold), mode=0o600)
    write_json(folder / METADATA_FILE, metadata(job, card), mode=0o600)
    write_json(folder / "docs" / CARD_JSON, dict(card), mode=0o600)
    write_text(folder / "docs" / "README.md", f"{to_text(card)}\n{_USE}", mode=0o600)


def inference_config(backbone: str, threshold: float) -> dict[str, Any]:
    """Return the configuration that ``monai.bundle run`` takes, with the names that MONAI asks of an inference."""
    return {
        "bundle_root": ".",
        "dataset_dir": ".",
        "scan": "",
        "es": "",
        "output_file": "$@bundle_root + '/prediction.json'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "imports": ["$import torch"],
        "network_def": {
            "_target_": f"{PARTS}.merged_network",
            "path": f"$@bundle_root + '/{WEIGHTS_FILE}'",
            "backbone": backbone,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": f"{PARTS}.PrepareScan", "backbone": backbone},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'scan': @scan, 'es': @es}]",
            "transform": "@preprocessing",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Activations", "softmax": True},
        "evaluator": {
            "_target_": f"{PARTS}.Evaluator",
            "dataset": "@dataset",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "threshold": threshold,
            "device": "@device",
            "output_file": "@output_file",
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(job: JobConfig, card: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata.json`` as MONAI's schema asks for it."""
    installed = {name: importlib.metadata.version(name) for name in ("nibabel", "safetensors", "scikit-learn")}
    return {
        "schema": SCHEMA,
        "version": BUNDLE_VERSION,
        "changelog": {BUNDLE_VERSION: f"exported by med-duallora {__version__}"},
        "monai_version": importlib.metadata.version("monai"),
        "pytorch_version": importlib.metadata.version("torch").split("+")[0],
        "numpy_version": importlib.metadata.version("numpy"),
        "required_packages_version": {"med-duallora": __version__, **installed},
        "name": card["name"],
        "task": "Disease detection in short-axis cine cardiac MRI",
        "description": f"{card['banner']} A CineMA classifier with federated adapters in its weights.",
        "authors": "the sites of the federation that trained it",
        "copyright": "see docs/README.md, Licence",
        "data_type": "nibabel, dicom",
        "image_classes": "two channels: end-diastole and end-systole, intensities in [0, 1]",
        "pred_classes": "two probabilities: 0 no known heart disease, 1 any disease",
        "eval_metrics": {},
        "intended_use": card["intended_use"],
        "references": ["arXiv:2603.10967 (Med-DualLoRA)", "arXiv:2506.00679 (CineMA)", "arXiv:2106.09685 (LoRA)"],
        "network_data_format": {"inputs": {"image": _image(job.backbone)}, "outputs": {"pred": dict(_PREDICTION)}},
    }


def _image(backbone: str) -> dict[str, Any]:
    config = BackboneConfig.preset(backbone)
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": config.n_input_channels,
        "spatial_shape": list(config.image_size),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "end-diastole", "1": "end-systole"},
    }


_PREDICTION: dict[str, Any] = {
    "type": "probabilities",
    "format": "classification",
    "num_channels": 2,
    "spatial_shape": [],
    "dtype": "float32",
    "value_range": [0, 1],
    "is_patch_data": False,
    "channel_def": {"0": "no known heart disease", "1": "disease"},
}

_USE = """## Running it

Install this package (`med-duallora`) and `fire` beside MONAI, go to this folder, and name a scan: a 4-D NIfTI file, ED
and ES as two NIfTI files (`--scan ED --es ES`), a folder of one DICOM study, or a prepared subject's folder.

    python -m monai.bundle run --config_file configs/inference.json --scan PATH

The result is printed and written to `prediction.json` (`--output_file FILE` for another place). The preparation is part
of the bundle: raw scans are resampled, cropped around the heart and scaled as the training scans were.

This folder holds one site's own model, with its local adapter and head: it stays where the site allows it to be.
"""
