"""The server's persistor: global adapters as safetensors with a manifest, never pickle."""

from pathlib import Path

import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, ConfigError, EgressViolation, MedDualLoRAError
from med_duallora.flare.server.asked import answer_for_adapter
from med_duallora.flare.server.directory import server_directory
from med_duallora.flare.wire.job import job_of
from med_duallora.flare.wire.payload import set_lineage
from med_duallora.measures import KEY_MEASURE
from med_duallora.server.artifact import adapter_manifest, load_adapter, save_adapter
from med_duallora.server.resume import SavedRound
from med_duallora.server.rundir import ADAPTERS, FLARE_MANIFEST_FILE, JOB_FILE, contributions, round_record
from med_duallora.support.files import write_json


class SafetensorsPersistor(ModelPersistor):
    """Gives the first global adapter and names the run; keeps the last and the best adapter.

    ``adapter_last`` is the result of the newest round; ``adapter_best`` is the incoming adapter that had the best
    mean validation score at the sites before they trained on it (``selector.AdapterSelector`` decides).

    Args:
        initial_adapter: ``.safetensors`` file of an adapter to start from, a path at the server or relative to the
            server's application directory; empty: the seeded initial adapter. Where the workflow begins with round 0,
            a new training starts from it, without the local states that belong to it; where it begins later, the job
            goes on with the training that the adapter belongs to.
    """

    def __init__(self, initial_adapter: str = "") -> None:
        super().__init__()
        self.initial_adapter = initial_adapter
        self._lineage = Lineage.begin()
        self._earlier: SavedRound | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Say in every train task which run it is; keep the incoming adapter when the selector calls it the best.

        From the start on, the job answers whoever may download its result with the adapter of its last round.
        """
        if event_type == EventType.START_RUN:
            answer_for_adapter(fl_ctx)
        elif event_type == AppEventType.BEFORE_TRAIN_TASK:
            set_lineage(fl_ctx.get_prop(AppConstants.TRAIN_SHAREABLE), self._lineage)
        elif event_type == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
            score = float(fl_ctx.get_prop(AppConstants.VALIDATION_RESULT))
            incoming = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
            # what the sites scored is what the round before this one gave
            round_index = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)) - 1
            self._save("best", incoming, round_index, fl_ctx, **{KEY_MEASURE: score})

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the global state of the first round, and write ``job.json``; stops the job where it cannot."""
        try:
            _check_rounds(fl_ctx)
            tensors = self._first_state(fl_ctx)
        except MedDualLoRAError as error:
            self.system_panic(f"the job cannot start: {error}", fl_ctx)
            return make_model_learnable({}, {})
        write_json(server_directory(fl_ctx) / JOB_FILE, job_of(fl_ctx).settings.to_dict())
        return make_model_learnable(tensors, {})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Keep the result of a round as ``adapter_last``, and name it in FLARE's list of artefacts."""
        path = self._save("last", model, int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)), fl_ctx)
        artifacts = {"schema_version": "1", "artifacts": {"global_model": path.name}}
        write_json(path.parent / FLARE_MANIFEST_FILE, artifacts)

    def _first_state(self, fl_ctx: FLContext) -> dict[str, np.ndarray]:
        job, start = job_of(fl_ctx), fl_ctx.get_prop(AppConstants.START_ROUND)
        path = server_directory(fl_ctx) / self.initial_adapter
        if start:
            return self._resumed(path, start, fl_ctx)
        if not self.initial_adapter:
            return initial_global_state(job.settings)
        tensors, _ = load_adapter(path)
        try:
            return job.contract.check_tensors(tensors)
        except EgressViolation as violation:
            raise ArtifactError(f"adapter {path.name} does not fit this job: {violation}") from violation

    def _resumed(self, path: Path, start: int, fl_ctx: FLContext) -> dict[str, np.ndarray]:
        if not self.initial_adapter:
            raise ConfigError(f"start_round = {start}, but no adapter is named to resume from; use --resume-from")
        saved = SavedRound.read(path)
        saved.check(job_of(fl_ctx).settings)
        if saved.next_round != start:
            raise ArtifactError(
                f"adapter {path.name} is the result of {saved.next_round} rounds, so that the next one is "
                f"start_round = {saved.next_round}, not {start}"
            )
        self._lineage, self._earlier = saved.lineage.continued(start), saved
        return dict(saved.tensors)

    def _save(self, which: str, model: ModelLearnable, round_index: int, fl_ctx: FLContext, **facts: float) -> Path:
        job, directory = job_of(fl_ctx), server_directory(fl_ctx)
        sites, counts = self._contributors(directory, round_index)
        manifest = adapter_manifest(
            job.settings,
            job.contract,
            job_id=fl_ctx.get_job_id(),
            lineage=self._lineage.to_list(),
            round=round_index,
            sites=sites,
            n_rounds_by_site=counts,
            **facts,
        )
        return save_adapter(directory, ADAPTERS[which], model[ModelLearnableKey.WEIGHTS], manifest)

    def _contributors(self, directory: Path, round_index: int) -> tuple[list[str], dict[str, int]]:
        """Return who took part in a round, and in how many rounds of the whole training each site has."""
        earlier = self._earlier
        counts = contributions(directory, round_index, earlier.n_rounds_by_site if earlier else {})
        if earlier and round_index == earlier.round_index:  # the adapter that came in is the best one so far
            return sorted(earlier.sites), counts
        return sorted(round_record(directory, round_index).get("sites", {})), counts


def _check_rounds(fl_ctx: FLContext) -> None:
    """The workflow and the job settings must agree, because the learning-rate schedule spans the job's rounds."""
    start, count = fl_ctx.get_prop(AppConstants.START_ROUND), fl_ctx.get_prop(AppConstants.NUM_ROUNDS)
    planned = job_of(fl_ctx).settings.train.n_rounds
    if start + count > planned:
        raise ConfigError(
            f"the workflow runs rounds {start} to {start + count - 1}, but train.n_rounds = {planned}; "
            "set start_round and num_rounds of the workflow and train.n_rounds so that they agree"
        )
