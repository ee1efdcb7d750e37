"""The workflow after the last round: every site scores the trained adapters on its own test subjects."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from med_duallora.boundary.ledger_entry import utc_now
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, ConfigError, EgressViolation
from med_duallora.flare.server.directory import keep_receipt, server_directory
from med_duallora.flare.wire.job import job_of
from med_duallora.flare.wire.payload import read_failure, read_metrics_reply, set_adapter_kind, set_lineage
from med_duallora.flare.wire.receipts import metrics_entry
from med_duallora.server.artifact import load_adapter
from med_duallora.server.rundir import ADAPTERS, EVALUATION_FILE, read_rounds
from med_duallora.settings.config import JobConfig
from med_duallora.settings.limits import some_of
from med_duallora.settings.workflow import LAST, WorkflowConfig
from med_duallora.support.files import write_json


class AdapterEvaluation(Controller):
    """Sends saved adapters to the sites, one after the other, and writes the scores to ``evaluation.json``.

    A site's local adapter belongs to the end of the training, so ``last`` is the consistent pair and, by default,
    the headline of the file (``model``, ``round``, ``sites``, ``failed``); the other ones stand under ``models``.

    FLARE's own GlobalModelEval is not used: it accepts any payload as a result and keeps models as FOBS files.

    Args:
        models: which adapters are evaluated, of ``best`` and ``last``, in this order; the last one is the headline.
        min_sites: answers that are waited for without limit.
        wait_s: seconds that slower sites get after that; where each site also trains alone, they get as long as all
            rounds take besides, because that is what the slowest site may need.
        timeout_s: seconds after which an evaluation ends in any case, likewise; 0: no limit.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(self, models: list[str], min_sites: int = 1, wait_s: int = 600, timeout_s: int = 0) -> None:
        super().__init__(task_check_period=0.2)
        known = some_of(*ADAPTERS)
        if not known.holds(models):
            raise ConfigError.of("models", models, known.text)
        WorkflowConfig(min_sites=min_sites, wait_s=wait_s, round_timeout_s=timeout_s)  # has the same limits
        self.models = models
        self.min_sites = min_sites
        self.wait_s = wait_s
        self.timeout_s = timeout_s
        self._scores: dict[str, dict[str, float]] = {}
        self._failed: dict[str, str] = {}

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to prepare."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to clean up."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Evaluate the models and write the file; stops the job where no adapter was saved."""
        directory = server_directory(fl_ctx)
        found: dict[str, dict[str, Any]] = {}
        for model in self.models:
            path = directory / f"{ADAPTERS[model]}.safetensors"
            if model == "best" and not path.exists():
                self.log_info(
                    fl_ctx, "no best adapter was selected: there were too few rounds, or no site could validate"
                )
                continue
            scores = self._evaluated(model, path, abort_signal, fl_ctx)
            if scores is None or abort_signal.triggered:
                return
            found[model] = scores
        if not found or not any(scores["sites"] for scores in found.values()):
            self.system_panic("no site evaluated the trained adapter; see the sites' logs", fl_ctx)
            return
        headline = list(found)[-1]
        scores = {"model": headline, **found.pop(headline), "models": found}
        write_json(directory / EVALUATION_FILE, {"ended": utc_now(), **scores})

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Drop what comes too late: it may belong to another adapter."""
        del client_task_id, result
        self.log_warning(fl_ctx, f"late result of {client.name} for task {task_name} dropped")

    def _evaluated(self, model: str, path: Path, abort_signal: Signal, fl_ctx: FLContext) -> dict[str, Any] | None:
        """Return the round of an adapter, the sites' scores and the sites that failed."""
        try:
            tensors, manifest = load_adapter(path)
            lineage = Lineage.from_list(manifest.get("lineage"))
        except (ArtifactError, ValueError) as error:
            self.system_panic(f"the trained adapter cannot be evaluated: {error}", fl_ctx)
            return None
        self._scores, self._failed = {}, {}
        longer = _alone_s(job_of(fl_ctx).settings, model, path.parent)
        data = DXO(DataKind.WEIGHTS, data=_plain(tensors)).to_shareable()
        set_lineage(data, lineage)
        set_adapter_kind(data, model)
        self.broadcast_and_wait(
            task=Task(
                name=AppConstants.TASK_VALIDATION,
                data=data,
                timeout=self.timeout_s and self.timeout_s + longer,
                result_received_cb=self._received,
            ),
            fl_ctx=fl_ctx,
            min_responses=self.min_sites,
            wait_time_after_min_received=self.wait_s + longer,
            abort_signal=abort_signal,
        )
        scores = {site: self._scores[site] for site in sorted(self._scores)}
        return {"round": manifest.get("round"), "sites": scores, "failed": dict(self._failed)}

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        site, reply = client_task.client.name, client_task.result
        client_task.result = None
        try:
            self._scores[site] = self._read(reply, fl_ctx)
        except EgressViolation as violation:
            self._failed[site] = str(violation)
            self.log_error(fl_ctx, f"no scores of {site}: {violation}")
            return
        keep_receipt(self, metrics_entry(fl_ctx.get_job_id(), site, self._scores[site]), fl_ctx)

    def _read(self, reply: Shareable, fl_ctx: FLContext) -> dict[str, float]:
        failure = read_failure(reply)
        if failure:
            raise EgressViolation(f"the site answered {failure.code}")
        return read_metrics_reply(job_of(fl_ctx).contract, reply)


def _alone_s(job: JobConfig, model: str, directory: Path) -> int:
    """Return how many seconds longer an evaluation may take, because each site also trains alone; 0: it does not."""
    rounds = read_rounds(directory) if job.train.compare_alone and model == LAST else []
    return math.ceil(fmean(record["seconds"] for record in rounds) * job.train.n_rounds) if rounds else 0


def _plain(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}
