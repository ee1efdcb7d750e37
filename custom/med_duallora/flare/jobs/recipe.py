"""The job as a recipe: the same object exports job folders and runs in SimEnv, PocEnv and ProdEnv."""

from dataclasses import asdict
from typing import Any

from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.executors.learner_executor import LearnerExecutor
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.server.evaluation import AdapterEvaluation
from med_duallora.flare.server.persistor import SafetensorsPersistor
from med_duallora.flare.server.rounds import TrainingRounds
from med_duallora.flare.server.selector import AdapterSelector
from med_duallora.flare.server.tensorboard import TensorBoardRuns
from med_duallora.flare.server.timing import RoundTimes
from med_duallora.flare.site.egress_filter import FILTERED_TASKS, EgressFilter
from med_duallora.flare.site.learner import DualLoRALearner
from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob
from med_duallora.measures import KEY_MEASURE
from med_duallora.settings.config import JobConfig
from med_duallora.settings.workflow import WorkflowConfig

PACKAGE = "med_duallora"
TASK_INTERVAL_S = 0.1
"""A site asks for its next task this long after an answer (FLARE's default of 2 s dominates short rounds)."""
MAX_ASKING = 100.0
"""Times a second that the server is asked for work by all sites together, at most: with more sites each asks less."""
TASK_CHECK_S = 0.05
"""The server looks this often whether all answers of a round are there."""


class MedDualLoRARecipe(Recipe):
    """Dual-LoRA federation of a job configuration.

    Args:
        name: of the job.
        job: the job scope.
        workflow: how the server waits; None: as the defaults say.
        code: folder that holds the package ``med_duallora`` and travels in the job; empty: the package is
            installed at every site.

    Raises:
        ConfigError: the start or stop round lies behind the last round.
    """

    def __init__(
        self,
        name: str,
        job: JobConfig,
        workflow: WorkflowConfig | None = None,
        code: str = "",
    ) -> None:
        workflow = workflow or WorkflowConfig()
        fed_job = FedJob(name=name, min_clients=workflow.min_sites)
        fed_job.set_app_packages([PACKAGE])
        _add_server(fed_job, job, workflow)
        _add_sites(fed_job, job)
        if code:
            fed_job.add_file_to_clients(f"{code}/{PACKAGE}", dest_dir=PACKAGE, app_folder_type="custom")
        super().__init__(fed_job)


def _add_server(fed_job: FedJob, job: JobConfig, workflow: WorkflowConfig) -> None:
    components: dict[str, Any] = {
        JOB_COMPONENT: FederatedJob(job.to_dict()),
        AppConstants.DEFAULT_AGGREGATOR_ID: DualLoRAAggregator(
            min_sites=workflow.min_sites, **asdict(workflow.screening)
        ),
        "persistor": SafetensorsPersistor(workflow.initial_adapter),
        AppConstants.DEFAULT_SHAREABLE_GENERATOR_ID: FullModelShareableGenerator(),
        "model_selector": AdapterSelector(key_metric=KEY_MEASURE),
        "tensorboard": TensorBoardRuns(),
        "times": RoundTimes(),
    }
    for component_id, component in components.items():
        fed_job.to_server(component, id=component_id)
    rounds = TrainingRounds(
        min_clients=workflow.min_sites,
        num_rounds=len(workflow.rounds(job)),
        start_round=workflow.start_round,
        wait_time_after_min_received=workflow.wait_s,
        train_timeout=workflow.round_timeout_s,
        persistor_id="persistor",
        task_check_period=TASK_CHECK_S,
    )
    evaluation = AdapterEvaluation(
        models=["best", "last"],
        min_sites=workflow.min_sites,
        wait_s=workflow.wait_s,
        timeout_s=workflow.round_timeout_s,
    )
    fed_job.to_server(rounds, id="rounds")
    fed_job.to_server(evaluation, id="evaluation")
    interval = max(TASK_INTERVAL_S, workflow.min_sites / MAX_ASKING)
    fed_job.to_server({"server": {"task_request_interval": interval}})


def _add_sites(fed_job: FedJob, job: JobConfig) -> None:
    answered = [AppConstants.TASK_TRAIN, AppConstants.TASK_VALIDATION]
    fed_job.to_clients(LearnerExecutor(learner_id="learner"), tasks=answered)
    fed_job.to_clients(FederatedJob(job.to_dict()), id=JOB_COMPONENT)
    fed_job.to_clients(DualLoRALearner(), id="learner")
    fed_job.to_clients(EgressFilter(), filter_type=FilterType.TASK_RESULT, tasks=list(FILTERED_TASKS))
