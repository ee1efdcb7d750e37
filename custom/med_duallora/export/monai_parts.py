"""What the configuration of a MONAI bundle names: the preparation of a scan as a transform, and the evaluation.

MONAI builds these by name, see ``bundle``; they work without PyTorch-Ignite, which MONAI's own evaluators need.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from med_duallora.backbone import BackboneConfig, CineMAClassifier, load_classifier
from med_duallora.backbone.inputs import to_input
from med_duallora.errors import InputError
from med_duallora.inference.decision import decision
from med_duallora.inference.scan import ScanSource
from med_duallora.server.artifact import INTENDED_USE
from med_duallora.support.files import write_json


class PrepareScan:
    """From a scan's files to the network's input: this package's own preparation, the one that training had.

    Args:
        backbone: preset of the network.
    """

    def __init__(self, backbone: str) -> None:
        self.backbone = BackboneConfig.preset(backbone)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare one scan.

        Args:
            data: ``scan``, the path of a 4-D NIfTI file, of a NIfTI file of ED (then ``es`` is that of ES), of a
                folder of one DICOM study or of a prepared subject.

        Returns:
            ``image`` (2, X, Y, Z), float32 in [0, 1], ED and ES; ``name``; ``remarks``.

        Raises:
            InputError: no scan was given.
            ScanError: it cannot be read or prepared; says why.
        """
        if not data.get("scan"):
            raise InputError("no scan was given: add --scan PATH (and --es PATH where ED and ES are two files)")
        es = data.get("es")
        scan = ScanSource(Path(str(data["scan"])), Path(str(es)) if es else None).read()
        return {
            "image": torch.from_numpy(to_input(scan.volume, self.backbone)),
            "name": scan.name,
            "remarks": list(scan.remarks),
        }


def merged_network(path: str, backbone: str) -> CineMAClassifier:
    """Return the network of a merged checkpoint, see ``merged``, in evaluation mode (CheckpointError)."""
    return load_classifier(path, BackboneConfig.preset(backbone))


class Evaluator:
    """Runs the network over a dataset and writes what it says.

    Args:
        dataset: items as ``PrepareScan`` returns them.
        network: images (batch, 2, X, Y, Z) to logits (batch, 2).
        inferer: calls the network, ``inferer(images, network)``.
        postprocessing: logits (2,) to probabilities (2,).
        threshold: from this probability of disease on it is disease.
        device: where to compute.
        output_file: JSON file for the results.
    """

    def __init__(
        self,
        *,
        dataset: Sequence[Mapping[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Tensor],
        postprocessing: Callable[[Tensor], Tensor],
        threshold: float,
        device: torch.device,
        output_file: str,
    ) -> None:
        self.dataset = dataset
        self.network = network
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.threshold = threshold
        self.device = device
        self.output_file = Path(output_file)

    def run(self) -> list[dict[str, Any]]:
        """Return one prediction per item, print it and write all of them, readable by this account alone."""
        self.network.eval()
        found = [self._one(self.dataset[index]) for index in range(len(self.dataset))]
        write_json(self.output_file, {"intended_use": INTENDED_USE, "predictions": found}, mode=0o600)
        for row in found:
            print(f"{row['scan']}: probability of disease {row['probability']:.4f}, {row['decision']} ({INTENDED_USE})")
        return found

    @torch.no_grad()
    def _one(self, item: Mapping[str, Any]) -> dict[str, Any]:
        logits = self.inferer(item["image"][None].to(self.device), self.network)
        probability = float(self.postprocessing(logits[0].float())[1])
        return {
            "scan": item["name"],
            "probability": probability,
            "threshold": self.threshold,
            "decision": decision(probability, self.threshold),
            "remarks": item["remarks"],
        }
