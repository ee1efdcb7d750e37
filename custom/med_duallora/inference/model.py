"""A trained model in memory: it takes a scan and says what it thinks of it, and how far that can be trusted.

    model = load_model("STATE_DIR/EXPERIMENT")
    prediction = model.predict("cine.nii.gz")
    print(prediction.probability, prediction.decision, prediction.against_trust)

It predicts what the evaluation at the end of its training would have said of the scan, by the model that the site chose
there (variant ``chosen``). Research use, not for diagnosis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.backbone import checkpoint_sha256, packaged_checkpoint
from med_duallora.errors import ArtifactError, CheckpointError
from med_duallora.inference.decision import decision
from med_duallora.inference.saved import SavedModel, read_saved
from med_duallora.inference.scan import Scan, ScanSource
from med_duallora.inference.trust import Distance, against_trust, distance_of
from med_duallora.site.features import FeatureSource
from med_duallora.site.model import network_of
from med_duallora.site.prediction import predict_volumes


@dataclass(frozen=True)
class Prediction:
    """What a model says of a scan.

    Args:
        scan: what it was shown; ``mid_slices`` and ``crop_window`` are there for a picture.
        probability: of disease, 0 to 1.
        calibrated: the probability after the site's calibration, on which 0.8 means four of five.
        threshold: from this probability on it is disease.
        decision: ``disease`` or ``normal``.
        distance: how far the scan lies from the training subjects; None where nothing tells it.
        against_trust: what speaks against trusting this, one sentence each.
    """

    scan: Scan
    probability: float
    calibrated: float
    threshold: float
    decision: str
    distance: Distance | None
    against_trust: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return what was noticed about the scan's files, one sentence each."""
        return self.scan.remarks


class TrainedModel:
    """A trained model of one site; ``load_model`` makes it.

    Args:
        saved: adapters, head and statistics.
        checkpoint: the backbone.
        device: where to compute, ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Attributes:
        saved: as given.
        network: backbone, adapters and head, in evaluation mode.
        source: trunk features.

    Raises:
        CheckpointError: the backbone is unusable, or another one than the model was trained on.
        ArtifactError: adapters or head do not fit the job's settings.
        ConfigError: the device is not there.
    """

    def __init__(self, saved: SavedModel, checkpoint: Path, device: str = "auto") -> None:
        found = checkpoint_sha256(checkpoint)
        if found != saved.backbone_sha256:
            raise CheckpointError(
                f"the model was trained on the backbone checkpoint with the SHA-256 {saved.backbone_sha256}, but "
                f"{checkpoint} has {found}: give the former one"
            )
        self.saved = saved
        self.network = network_of(saved.job, checkpoint, device)
        self.source = FeatureSource(self.network, saved.job, saved.backbone_sha256, None)
        plan = self.network.plan
        try:
            self.network.load_values(plan.sent, saved.state.sent)
            self.network.load_values(plan.kept, saved.state.kept)
            self.network.head_norm.use(saved.state.statistics)
            self.network.switch(*saved.acts)
        except ValueError as error:
            raise ArtifactError(f"the saved model does not fit its own job's settings: {error}") from error

    def predict(self, scan: str | Path | ScanSource | Scan, es: str | Path | None = None) -> Prediction:
        """Say what the model thinks of one scan.

        Args:
            scan: 4-D NIfTI file, NIfTI file of ED (with ``es``), folder of one DICOM study or of a prepared subject,
                or what ``ScanSource.read`` returned.
            es: NIfTI file of ES, where ``scan`` is one of ED.

        Raises:
            ScanError: it cannot be read or prepared; says why.
        """
        if isinstance(scan, str | Path):
            scan = ScanSource(Path(scan), Path(es) if es else None)
        if isinstance(scan, ScanSource):
            scan = scan.read()
        chances, summaries = predict_volumes(self.network, self.source, [scan.volume], self.saved.job.train)
        probability, calibration = float(chances[0]), self.saved.calibration
        reference = self.saved.state.reference
        distance = distance_of(reference, np.asarray(summaries[0]))
        return Prediction(
            scan=scan,
            probability=probability,
            calibrated=float(calibration.calibrated(probability)),
            threshold=calibration.threshold,
            decision=decision(probability, calibration.threshold),
            distance=distance,
            against_trust=against_trust(scan, reference, distance),
        )

    def chances(self, volumes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the probabilities of disease (n,) of volumes as ``Scan`` holds them, for ``occlusion``."""
        return predict_volumes(self.network, self.source, volumes, self.saved.job.train)[0]


def load_model(
    path: str | Path, *, backbone_checkpoint: str | Path | None = None, device: str = "auto"
) -> TrainedModel:
    """Load a trained model to predict with.

    Args:
        path: a site's ``STATE_DIR/EXPERIMENT`` (its newest run), one run's folder in it, or a file of ``save_model``.
        backbone_checkpoint: the backbone that it was trained on; None: the one shipped for its preset.
        device: where to compute; ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ArtifactError: there is no model, or it is damaged.
        CheckpointError: the backbone is unusable, or another one than the model was trained on.
        ConfigError: the device is not there.
    """
    saved = read_saved(Path(path))
    checkpoint = Path(backbone_checkpoint) if backbone_checkpoint else packaged_checkpoint(saved.job.backbone)
    return TrainedModel(saved, checkpoint, device)
