"""A trained model on disk: a site's saved state with the job that it belongs to, or one file that holds all of it.

Both are of one site, local adapter and head included, so both stay at that site and only its account can read them.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from med_duallora import __version__
from med_duallora.boundary.lineage import RUN_ID, Lineage
from med_duallora.errors import ArtifactError, ConfigError, StateError, shown
from med_duallora.inference.gate import Gate, gate_of_kept
from med_duallora.measures import FEDERATED
from med_duallora.settings.config import JobConfig
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import Calibration
from med_duallora.site.deployed import ACTS, BOTH_ACT, CHOSEN_FOLDER
from med_duallora.site.kept_calibration import PREDICTIONS_FILE, KeptCalibration, read_kept
from med_duallora.site.model import identity_of
from med_duallora.site.state import MODEL_FILE, STATE_FILE, SiteState, read_state, state_checksum
from med_duallora.support.digest import content_digest
from med_duallora.support.files import atomic_path, parsed_object, read_object
from med_duallora.support.private import LINK, open_own
from med_duallora.support.tensors import read_tensors

RESEARCH_USE = "Research use only, not for diagnosis."
MODEL_VERSION = "2"
FACTS, CHECKSUM = "med_duallora_model", "checksum"
"""Entries of a model file's metadata: what it is as JSON text, and the digest of its tensors and of that text."""
PARTS = ("kept", "sent", "statistics", "reference")
"""What of a state a model file holds; the optimizer's moments are of no use to it."""
HINT = "give a site's STATE_DIR/EXPERIMENT, one run's folder in it, or a model file"
ADAPTER = "A federation's global adapter is for `fit-head`, or for `predict --adapter`"


@dataclass(frozen=True)
class SavedModel:
    """What a prediction needs of a trained model, besides the backbone.

    Args:
        site: whose model it is.
        job: the settings that it was trained with.
        backbone_sha256: hash of the checkpoint that it was trained on.
        lineage: of the run that trained it.
        state: both adapters, the head, its statistics and those of the training subjects.
        program: version of med-duallora that wrote it.
        evaluation: what the last evaluation at the site left; None: there was none.
        is_evaluated: whether it is this state that was evaluated.
        acts: whether the global and the local adapter act in a prediction.
        remark: what a reader of its predictions must know besides; empty for a model of a site.
    """

    site: str
    job: JobConfig
    backbone_sha256: str
    lineage: Lineage
    state: SiteState
    program: str = __version__
    evaluation: KeptCalibration | None = None
    is_evaluated: bool = False
    acts: tuple[bool, bool] = BOTH_ACT
    remark: str = ""

    @property
    def calibration(self) -> Calibration:
        """Return what the site fitted for this state; where it fitted nothing, 0.5 decides and nothing is changed."""
        return self.evaluation.calibration if self.evaluation and self.is_evaluated else Calibration()

    @property
    def gate(self) -> Gate:
        """Return whether the model is released at its site."""
        return gate_of_kept(self.evaluation, self.is_evaluated)

    def under(self, floors: ReleaseFloors) -> "SavedModel":
        """Return the same model under further floors of its release gate."""
        return replace(self, evaluation=self.evaluation.under(floors)) if self.evaluation else self

    @property
    def sha256(self) -> str:
        """Return the digest of everything that decides a prediction."""
        facts = {"job": self.job.to_dict(), "backbone": self.backbone_sha256, **self._fitted(), **self._acting()}
        return content_digest(_tensors(self.state), facts)

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader of its predictions must know; plain JSON values."""
        return {
            "site": self.site,
            "experiment": self.job.experiment,
            "method": self.job.method,
            "backbone": self.job.backbone,
            "backbone_sha256": self.backbone_sha256,
            "run": self.lineage.run_id,
            "round": self.state.round_index + 1,
            "sha256": self.sha256,
            **self._fitted(),
            "released": self.gate.passed,
            "gate": self.gate.sentence,
            "chosen": self.evaluation.chosen.variant if self.evaluation and self.is_evaluated else FEDERATED,
            "remark": self.remark,
        }

    def _acting(self) -> dict[str, Any]:
        return {} if self.acts == BOTH_ACT else {ACTS: list(self.acts)}

    def _fitted(self) -> dict[str, float]:
        return {"threshold": self.calibration.threshold, "temperature": self.calibration.temperature}


def read_saved(path: Path) -> SavedModel:
    """Read a trained model.

    Args:
        path: a site's folder of one run, the folder of its experiment (the run that was saved last), a state in a
            run's folder, or a model file.

    Raises:
        ArtifactError: there is none, it is damaged, or it does not belong to the job beside it.
    """
    if path.is_dir():
        return _of_run(_run_folder(path) / STATE_FILE)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; {HINT}")
    try:
        with open_own(path) as stream:
            metadata, tensors = read_tensors(stream, "numpy")
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        why = LINK if path.is_symlink() else "it is damaged or not a safetensors file"
        raise ArtifactError(f"{path} cannot be used: {why}; {HINT}") from error
    if not {FACTS, CHECKSUM} & set(metadata):
        raise ArtifactError(f"{path} holds no trained model of a site, only tensors; {HINT}. {ADAPTER}")
    return _of_file(path, metadata, tensors) if FACTS in metadata else _of_run(path)


def save_model(saved: SavedModel, target: Path) -> Path:
    """Write a trained model to one safetensors file, atomically, mode 0600; return its path.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    facts = {
        "model_version": MODEL_VERSION,
        "intended_use": RESEARCH_USE,
        "site": saved.site,
        "job": saved.job.to_dict(),
        "backbone_sha256": saved.backbone_sha256,
        "lineage": saved.lineage.to_list(),
        "round": saved.state.round_index,
        "cohort": saved.state.cohort,
        "evaluation": saved.evaluation.to_dict() if saved.evaluation and saved.is_evaluated else None,
        ACTS: list(saved.acts),
        "versions": {
            "med_duallora": saved.program,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
    }
    tensors = _tensors(saved.state)
    text = json.dumps(facts, sort_keys=True)
    with atomic_path(target, mode=0o600) as partial:
        save_file(tensors, partial, metadata={FACTS: text, CHECKSUM: content_digest(tensors, {FACTS: text})})
    return target


def _tensors(state: SiteState) -> dict[str, np.ndarray]:
    parts = {part: getattr(state, part) for part in PARTS}
    return {f"{part}/{n}": np.array(v, order="C") for part, values in parts.items() for n, v in values.items()}


def _run_folder(folder: Path) -> Path:
    """Return the run whose state was saved last, in the folder of a run or of an experiment."""
    if (folder / MODEL_FILE).exists() or (folder / STATE_FILE).exists():
        return folder
    runs = [found.parent for found in folder.glob(f"*/{STATE_FILE}")]
    if runs:
        return max(runs, key=lambda run: ((run / STATE_FILE).stat().st_mtime_ns, run.name))
    below = sorted({found.parents[1] for found in folder.glob(f"*/*/{STATE_FILE}")})
    hint = f"give one of its experiments, such as {below[0]}" if below else HINT
    evaluated = [found.parent.name for place in ("", "*/") for found in folder.glob(place + PREDICTIONS_FILE)]
    if any(map(RUN_ID.fullmatch, evaluated)):
        hint = "a site that only evaluates keeps none. `med-duallora fit-head` makes a model of the global adapter"
    raise ArtifactError(f"{folder} holds no saved state of a site; {hint}")


def _of_run(path: Path) -> SavedModel:
    """Return the model that a site uses of a run: the one of its state, or another one that it chose."""
    found, kept = _of_state(path), read_kept(path.parent)
    if kept is None:
        return found
    if not kept.is_of(path) or not kept.chosen.state:
        return replace(found, evaluation=kept, is_evaluated=kept.is_of(path))
    place = path.parent / CHOSEN_FOLDER / STATE_FILE
    if state_checksum(place) != kept.chosen.state:
        raise ArtifactError(
            f"{place} is not the model that the site chose in its last evaluation, which was interrupted or changed "
            "since: evaluate the model again"
        )
    return replace(_of_state(place), evaluation=kept, is_evaluated=True)


def _of_state(path: Path) -> SavedModel:
    folder = path.parent
    try:
        owner, state = read_state(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} holds no saved state yet: its training has not finished a round") from error
    except StateError as error:
        raise ArtifactError(f"{path} cannot be used: {error}") from error
    facts = _job_beside(folder)
    job, lineage = _read_facts(facts, folder / MODEL_FILE)
    site = str(facts.get("site"))
    if owner.identity != identity_of(site, job):
        raise ArtifactError(
            f"{path} is a state of another experiment, site or method than the {MODEL_FILE} beside it describes: put "
            "the state back into the folder that it is from"
        )
    program = str(facts.get("med_duallora", ""))
    acts = _acts(facts, folder / MODEL_FILE)
    return SavedModel(site, job, owner.backbone, lineage, state, program, acts=acts)


def _job_beside(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / MODEL_FILE)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder} has no {MODEL_FILE}, which says what its state belongs to: an earlier version of med-duallora "
            "wrote it; a round of training or an evaluation with this one writes both"
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / MODEL_FILE} cannot be read: {error}") from error


def _of_file(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> SavedModel:
    text = metadata[FACTS]
    try:
        facts = parsed_object(text)
    except ValueError as error:
        raise ArtifactError(f"model file {path} is damaged: {error}") from error
    if metadata.get(CHECKSUM) != content_digest(tensors, {FACTS: text}):
        raise ArtifactError(f"model file {path} is damaged: its bytes are not those that were written")
    if facts.get("model_version") not in (MODEL_VERSION, "1"):  # in which both adapters always act
        raise ArtifactError(
            f"model file {path} was written by another version of med-duallora (model_version is "
            f"{facts.get('model_version')!r}, this one reads {MODEL_VERSION!r}): use the version that wrote it"
        )
    job, lineage = _read_facts(facts, path)
    kept = _evaluation(facts, path)
    names = {name: _of_type(facts, name, str, path) for name in ("site", "backbone_sha256", "cohort")}
    parts = {part: _under(f"{part}/", tensors) for part in PARTS}
    state = SiteState(_of_type(facts, "round", int, path), moments={}, cohort=names["cohort"], **parts)
    program = str(_of_type(facts, "versions", dict, path).get("med_duallora"))
    facts_of_model = (names["site"], job, names["backbone_sha256"], lineage, state, program)
    return SavedModel(*facts_of_model, kept, kept is not None, _acts(facts, path))


def _evaluation(facts: Mapping[str, Any], path: Path) -> KeptCalibration | None:
    if facts.get("evaluation") is None:
        return None
    try:
        return KeptCalibration.from_dict(_of_type(facts, "evaluation", dict, path))
    except ConfigError as error:
        raise ArtifactError(f"model file {path} is damaged: evaluation: {error}") from error


def _of_type(facts: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    if type(facts.get(name)) is not kind:
        raise ArtifactError(f"model file {path} is damaged: {name} is {shown(facts.get(name))}")
    return facts[name]


def _acts(facts: Mapping[str, Any], place: Path) -> tuple[bool, bool]:
    """Return which adapters act; all do where nothing is said."""
    found = facts.get(ACTS, list(BOTH_ACT))
    if not (isinstance(found, list) and [type(item) for item in found] == [bool, bool]):
        raise ArtifactError(f"{place} is damaged: {ACTS} is {shown(found)}")
    return found[0], found[1]


def _under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read_facts(facts: Mapping[str, Any], place: Path) -> tuple[JobConfig, Lineage]:
    try:
        return JobConfig.from_dict(facts["job"]), Lineage.from_list(facts["lineage"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{place} does not hold the settings of a job of this version: {error}") from error
