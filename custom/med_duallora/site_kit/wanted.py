"""What the files of a closed site kit hold, as pure functions of what they held before."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from med_duallora.errors import KitError
from med_duallora.settings.job_limits import JOB_LIMITS
from med_duallora.settings.policy import OF_A_BOOL, SitePolicy
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.places import CHANGE_ME

Json = dict[str, Any]

SITE_CLASSES = (
    "nvflare.app_common.executors.learner_executor.LearnerExecutor",
    "med_duallora.flare.wire.job.FederatedJob",
    "med_duallora.flare.site.learner.DualLoRALearner",
    "med_duallora.flare.site.egress_filter.EgressFilter",
)
"""Everything a job may name at a site. They are exact classes on purpose: FLARE calls whatever a listed path leads to
with arguments of the job's choice, so a package prefix would let a job call any function of that package."""

SERVER_CLASSES = (
    "med_duallora.flare.wire.job.FederatedJob",
    "med_duallora.flare.server.aggregator.DualLoRAAggregator",
    "med_duallora.flare.server.persistor.SafetensorsPersistor",
    "med_duallora.flare.server.selector.AdapterSelector",
    "med_duallora.flare.server.rounds.TrainingRounds",
    "med_duallora.flare.server.evaluation.AdapterEvaluation",
    "med_duallora.flare.server.tensorboard.TensorBoardRuns",
    "med_duallora.flare.server.timing.RoundTimes",
)
"""What a job may name at the server besides FLARE's own list."""

SCOPE = "med-duallora"
FILTER_PATH = "med_duallora.flare.site.egress_filter.EgressFilter"
GUARD = {"id": "egress_guard", "path": "med_duallora.flare.site.egress_guard.EgressGuard", "args": {}}
CONSOLE_GUARD = {"id": "console_guard", "path": "med_duallora.flare.site.console_guard.ConsoleGuard", "args": {}}
LITERAL_GUARD = {"id": "literal_guard", "path": "med_duallora.flare.wire.literal_guard.LiteralGuard", "args": {}}
"""At the sites and at the server: a job is built from literal JSON only."""
CONNECTION_GUARD = {
    "id": "connection_guard",
    "path": "med_duallora.flare.wire.connections.ConnectionGuard",
    "args": {},
}
"""At the server; at a site the message gate does the same."""
SERVER_GUARDS = (LITERAL_GUARD, CONNECTION_GUARD)
MESSAGE_GATE = {"id": "message_gate", "path": "med_duallora.flare.site.message_gate.MessageGate", "args": {}}
STREAMER_PATH = "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer"
SITE_CONFIG_PROPERTY = "med_duallora_site_config"
CLOSED_RIGHTS = ("byoc", "shell_commands", "server-predeployed-flwr")
"""Rights that nobody has at a closed site: bringing code, reading files through the console."""
SHELL_COMMANDS = ("cat", "grep", "head", "ls", "pwd", "tail")
"""Rights for single commands win over their category in FLARE, so they are closed as well."""
ALL_RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate", *CLOSED_RIGHTS)
NOBODY = ("none", "no")
"""How FLARE's authorisation file says that nobody has a right; whatever else stands there counts as somebody."""


def resources(before: Json) -> Json:
    """Return local/resources.json: only our classes, literal jobs, no log streaming, no console shell, one gate."""
    values = copy.deepcopy(before)
    values["class_list_enforcement_mode"] = "enforce"
    values["class_allow_list"] = list(SITE_CLASSES)
    values["allow_log_streaming"] = False
    ours = (CONSOLE_GUARD, LITERAL_GUARD, MESSAGE_GATE)
    replaced = {STREAMER_PATH, *(guard["path"] for guard in ours)}
    kept = [item for item in values["components"] if item["path"] not in replaced]
    values["components"] = [*kept, *copy.deepcopy(ours)]
    return values


def privacy(site_config: Path) -> Json:
    """Return local/privacy.json: every job runs in one scope with our filter, and our guard acts last."""
    scope = {
        "name": SCOPE,
        "properties": {SITE_CONFIG_PROPERTY: str(site_config)},
        "task_result_filters": [{"path": FILTER_PATH, "args": {}}],
    }
    return {"scopes": [scope], "default_scope": SCOPE, "components": [copy.deepcopy(GUARD)]}


def authorization(before: Json) -> Json:
    """Return local/authorization.json: as before, but nobody brings code or reads files.

    Raises:
        KitError: a role's permissions are neither a text nor a set of rights.
    """
    values = copy.deepcopy(before)
    for role, given in values["permissions"].items():
        rights = dict.fromkeys(ALL_RIGHTS, given) if isinstance(given, str) else given
        if not isinstance(rights, dict):
            raise KitError(f"local/authorization.json: the permissions of {role!r} are a {type(rights).__name__}")
        kept = {right: who for right, who in rights.items() if not is_closed_right(right)}
        values["permissions"][role] = {**kept, **dict.fromkeys(CLOSED_RIGHTS, "none")}
    return values


def is_closed_right(right: str) -> bool:
    """Return whether nobody may have this right; FLARE ignores case and extra blanks in its name."""
    return " ".join(right.lower().split()) in (*CLOSED_RIGHTS, *SHELL_COMMANDS)


def open_rights(rights: Any) -> list[str]:
    """Return which of the closed rights a role's permissions give to somebody."""
    if not isinstance(rights, dict):
        return [] if rights in NOBODY else list(CLOSED_RIGHTS)
    return sorted(right for right, who in rights.items() if is_closed_right(right) and who not in NOBODY)


def ledger_place(kit: Path) -> Path:
    """Return where a site's ledger lies unless its administrator says otherwise: beside the kit, FLARE's workspace."""
    return kit.parent / f"{kit.name}-ledger" / "egress_ledger.jsonl"


def site_config_template(kit: Path) -> Json:
    """Return a site configuration with a strict privacy floor, whose paths the site administrator fills in."""
    return {
        "data_dir": f"{CHANGE_ME}/prepared/cohort",
        "state_dir": f"{CHANGE_ME}/state",
        "cache_dir": f"{CHANGE_ME}/cache",
        "backbone_checkpoint": None,
        "device": "auto",
        "n_threads": 1,
        "cache_budget_mb": 4096,
        "ledger": str(ledger_place(kit)),
        "policy": strict_policy(),
        "release": dataclasses.asdict(ReleaseFloors()),
    }


def strict_policy() -> Json:
    """Return the policy that a kit begins with: every key, and every range where an administrator can change it."""
    values = dataclasses.asdict(SitePolicy(job_limits=JOB_LIMITS))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def completed(site_config: Json) -> Json:
    """Return a site configuration with every key of its policy: what it has stays, what it lacks is strict.

    What an earlier version wrote in other words is written in today's, and means the same.
    """
    policy = {**strict_policy(), **site_config.get("policy", {})}
    if isinstance(policy["head_leaves"], bool):
        policy["head_leaves"] = OF_A_BOOL[policy["head_leaves"]]
    return {**site_config, "policy": policy}
