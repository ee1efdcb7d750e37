"""A campaign in a real federation while processes die and networks are cut, and nobody intervenes.

    python -m benchmarks.soak --workspace DIR [--sites 8] [--rounds 20] [--faults 6] [--seed 0] [--out soak.json]

DIR is a new folder outside the checkout. A rehearsed federation (real processes, mutual TLS, backbone ``cinema-tiny``
of random weights, cohorts of drawn discs) runs one ``med-duallora campaign`` of its lead. After rounds that the seed
chooses, a fault happens to a site that the seed chooses:

    job      the site's job process is killed (SIGKILL)
    site     the site's FLARE process and its job process are killed; it is started again after some seconds
    server   the same with the server
    network  every process of the site is stopped (SIGSTOP) for ``--cut`` seconds, and goes on then

Afterwards: are all rounds done, is every finished round kept exactly once, is nothing left running, and is the
adapter of every round, bit for bit, the one of an undisturbed training in one process in which the same sites train and
count in every round (see ``soak_replay``)?
"""

import argparse
import contextlib
import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from benchmarks.soak_judge import events_of, judged, passed
from benchmarks.soak_replay import Watcher
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from tests.conftest import REPOSITORY, write_tiny_cohort
from tests.integration.harness import SETTINGS, SITE_SETTINGS, RunningFederation

from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.rehearsal import Plan, down, start_one, up
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.support.files import sha256_of_file, write_json

KINDS = ("job", "site", "server", "network")
OF_ITSELF = "campaign"
"""A fault that a test can name: the campaign's own program is killed, and its command is given again."""
DEAD_S = 5.0
"""How long a killed site or server stays away."""
LOOK_S = 0.2
PATIENCE_S = 60.0
LIMIT_S = 3600.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Args:
        after: the round, from 0, after whose end it happens; -1: once the first job is submitted.
        delay_s: how long after that.
        kind: see the module's text.
        site: to whom; the server's fault has none.
    """

    after: int
    delay_s: float
    kind: str
    site: str


def plan_faults(seed: int, n_rounds: int, n_faults: int, sites: Sequence[str]) -> list[Fault]:
    """Return faults that are spread over the rounds: each in a stretch of its own, no kind again before all came."""
    chance = random.Random(seed)  # noqa: S311, no secret
    kinds: list[str] = []
    faults = []
    for number in range(n_faults):
        kinds = kinds or chance.sample(KINDS, len(KINDS))
        first, last = number * n_rounds // n_faults, (number + 1) * n_rounds // n_faults
        kind = kinds.pop()
        site = "" if kind == "server" else chance.choice(list(sites))
        faults.append(Fault(chance.randrange(first, max(last - 1, first + 1)), chance.uniform(0, 1), kind, site))
    return faults


def happen(fault: Fault, federation: RunningFederation, cut_s: float) -> None:
    """Let a fault happen, and undo what undoes itself."""
    name = fault.site or federation.federation.server
    time.sleep(fault.delay_s)
    if fault.kind == "network":
        with contextlib.ExitStack() as stack:
            for process in _of(federation, name):
                process.suspend()
                stack.callback(_resumed, process)
            time.sleep(cut_s)
        return
    workers = federation.working(name)
    if fault.kind in ("site", "server"):
        federation.kill(name)  # first, so that nobody is left to tell of the job process
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    if fault.kind in ("site", "server"):
        time.sleep(DEAD_S)
        federation.federation = start_one(federation.federation, name)


def _resumed(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def _of(federation: RunningFederation, name: str) -> list[psutil.Process]:
    """Return the processes of a site, its FLARE process first."""
    (parent,) = [item.pid for item in federation.federation.processes if item.name == name]
    return [psutil.Process(parent), *federation.working(name)]


def soak(
    federation: RunningFederation, faults: Sequence[Fault], command: Sequence[str], out: Path, cut_s: float
) -> int:
    """Run a campaign while faults happen; return its exit code. The campaign's own death is followed by its command."""
    left = list(faults)
    with (out.parent / f"{out.name}.log").open("w") as log:
        campaign = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + LIMIT_S
            while campaign.poll() is None and time.monotonic() < deadline:
                done = _reached(out)
                if left and done >= left[0].after:
                    fault = left.pop(0)
                    if fault.kind == OF_ITSELF:
                        _ended(campaign)
                        campaign = subprocess.Popen(command, stdout=log, stderr=log)
                    else:
                        happen(fault, federation, cut_s)
                time.sleep(LOOK_S)
        finally:
            code = campaign.poll()
            _ended(campaign)
    return -1 if code is None else int(code)


def _reached(out: Path) -> int:
    """Return the last round that is kept; -1 before the first one, -2 before the first job."""
    events = events_of(out)
    begun = -1 if any(event["event"] == "submitted" for event in events) else -2
    return max((int(event["round"]) for event in events if event["event"] == "round"), default=begun)


def _ended(program: "subprocess.Popen[bytes]") -> None:
    program.kill()
    program.wait()


def command_of(federation: Federation, out: Path, settings: Sequence[str]) -> list[str]:
    """Return the campaign's command as a lead gives it."""
    kit = federation.kit(federation.person("lead"))
    words = [sys.executable, "-m", "med_duallora", "campaign", "--admin-kit", str(kit), "--out", str(out)]
    words += ["--patience", str(PATIENCE_S), "--give-up-after", "600"]
    return words + [word for setting in settings for word in ("--set", setting)]


def settings_of(n_rounds: int, min_sites: int, checkpoint: Path, epochs: int, experiment: str = "soak") -> list[str]:
    """Return the settings of the campaign's job."""
    own = ("experiment", "train.n_rounds", "train.local_epochs")
    return [
        *(item for item in SETTINGS if not item.startswith(own)),
        f"experiment={experiment}",
        f"train.n_rounds={n_rounds}",
        f"train.local_epochs={epochs}",
        f"workflow.min_sites={min_sites}",
        "workflow.wait_s=20",
        f"backbone_sha256={sha256_of_file(checkpoint)}",
    ]


def fresh_sites(cohorts: Mapping[str, Path], checkpoint: Path, below: Path) -> dict[str, SiteConfig]:
    """Return the same sites in this process, with states of their own."""
    policy = SitePolicy.for_one_machine()
    return {
        site: SiteConfig(cohort, below / site / "state", below / site / "cache", checkpoint, "cpu", policy=policy)
        for site, cohort in cohorts.items()
    }


def job_of(settings: Sequence[str]) -> JobConfig:
    """Return the job of those settings; what belongs to the workflow changes no adapter."""
    return JobConfig().with_overrides([item for item in settings if not item.startswith("workflow.")])


def states_of(federation: RunningFederation, site: str, experiment: str = "soak") -> Path:
    """Return where a site keeps the local states of an experiment, a folder per run."""
    return federation.directory / "sites" / site / "state" / experiment


def _world(workspace: Path, n_sites: int) -> tuple[dict[str, Path], Path]:
    """Write cohorts and a checkpoint."""
    names = [f"hospital-{number}" for number in range(n_sites)]
    cohorts = {name: write_tiny_cohort(workspace / "data" / name, name, seed) for seed, name in enumerate(names)}
    model = build_classifier(BackboneConfig.preset("cinema-tiny"), seed=7)
    checkpoint = workspace / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, checkpoint)
    return cohorts, checkpoint


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Start a federation, soak it, end it and judge."""
    workspace = options.workspace.resolve()
    cohorts, checkpoint = _world(workspace, options.sites)
    settings = settings_of(options.rounds, max(1, options.sites // 2), checkpoint, options.epochs)
    project = REPOSITORY / "poc" / "project.yml"
    plan = Plan(workspace / "federation", project, cohorts, checkpoint, SITE_SETTINGS, timeout_s=300, own_sites=True)
    faults = plan_faults(options.seed, options.rounds, options.faults, list(cohorts))
    federation = RunningFederation(up(plan), workspace)
    out = workspace / "campaign"
    watcher = Watcher({site: states_of(federation, site) for site in cohorts})
    try:
        with watcher.watching():
            code = soak(federation, faults, command_of(federation.federation, out, settings), out, options.cut)
        working = len(federation.job_processes())
    finally:
        down(federation.federation, polite=False)
    found = judged(out, job_of(settings), fresh_sites(cohorts, checkpoint, workspace / "replay"), code, watcher.saved)
    found |= {"left_running": working + len(processes.members(federation.federation.identity))}
    asked = {"sites": options.sites, "rounds": options.rounds, "seed": options.seed, "cut_s": options.cut}
    return {**asked, "faults": [dataclasses.asdict(fault) for fault in faults], **found, "passed": passed(found)}


def shown(found: Mapping[str, Any]) -> Table:
    """Return what a person reads of a soak."""
    table = Table("what", "found")
    for fault in found["faults"]:
        table.add_row(f"fault after round {fault['after'] + 1}", f"{fault['kind']} {fault['site']}")
    names = ["seconds", "jobs", "rounds_done", "every_round_once", "rounds_without_a_site", "rounds_trained_in_vain"]
    names += ["rounds_compared", "rounds_equal", "replay_equal", "can_be_reported", "left_running", "passed"]
    for name in names:
        table.add_row(name.replace("_", " "), str(found[name]))
    return table


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="A campaign while processes die and networks are cut.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--faults", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cut", type=float, default=30.0, help="seconds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measured(options)
    Console().print(shown(found))
    if options.out:
        write_json(options.out, found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
