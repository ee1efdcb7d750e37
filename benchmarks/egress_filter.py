"""What the privacy boundary of a site costs, beside a round of training on the same adapters.

    python benchmarks/egress_filter.py --data PREPARED [--backbone cinema-base] [--repetitions 20] [--out cost.json]

PREPARED is the prepared cohort of one site. The backbone has random weights, because its values change no time; the
feature cache is warm, which makes a round as short as it gets. Measured is everything that the boundary does

- with a train reply: the site's filter, the job's filter, the guard, and the line of the ledger with its fsyncs;
- with messages: the gate's two looks at a request that it lets in, for as many requests as ``--messages`` says;
- with a job: what the literal guard does in the parent and in the job process. This is done once per job and is counted
  here as if a job had one round.

The share is that of one round of this machine in this moment; every part is measured on it as well.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import FilterContextKey, FilterSource
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.fuel.f3.cellnet.core_cell import MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.message import Message
from safetensors.torch import save_file

from med_duallora.adapter.model import initial_global_state
from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.boundary.literal import check_app, check_same, read_literal
from med_duallora.flare.jobs.export import JobSpec, export_job
from med_duallora.flare.site.egress_filter import EgressFilter
from med_duallora.flare.site.egress_guard import EgressGuard
from med_duallora.flare.site.learner import DualLoRALearner
from med_duallora.flare.site.message_gate import Gate
from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.runtime import SiteRuntime
from med_duallora.support.files import write_json

JOB_ID = "00000000-0000-4000-8000-000000000000"
PARTS = ("site_filter", "job_filter", "guard", "gate", "literal")


class Process:
    """As much of FLARE's client process as the boundary asks for."""

    def __init__(self, job: JobConfig, runtime: SiteRuntime, config: Path) -> None:
        learner = DualLoRALearner()
        learner._runtime = runtime
        self.components = {JOB_COMPONENT: FederatedJob(job.to_dict()), "learner": learner}
        self.manager = FLContextManager(self, "benchmark", "job")
        self.properties = {"med_duallora_site_config": str(config)}

    def get_component(self, name: str) -> object:
        """Return a component by id."""
        return self.components.get(name)

    def get_all_components(self) -> dict[str, object]:
        """Return all components."""
        return dict(self.components)

    def context(self) -> FLContext:
        """Return the context of a train task."""
        fl_ctx = self.manager.new_context()
        fl_ctx.set_prop(FLContextKey.TASK_NAME, "train", private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.SCOPE_PROPERTIES, self.properties, private=True, sticky=False)
        return fl_ctx


def main() -> None:
    """Measure and print one line per part."""
    options = _parse()
    job = JobConfig(backbone=options.backbone).with_overrides([f"train.n_views={options.views}"])
    with tempfile.TemporaryDirectory() as scratch:
        found = _measured(job, options.data, Path(scratch), options)
    share = found["boundary_s"] / found["round_s"]
    print(f"{options.backbone}: {found['payload_bytes']:.0f} bytes, {found['n_subjects']:.0f} training subjects")
    print(f"round (validate and train, warm cache): {found['round_s']:.2f} s")
    for name in PARTS:
        part = found[name + "_s"]
        print(f"{name}: {1000 * part:.1f} ms (median of {options.repetitions}), {100 * part / found['round_s']:.3f} %")
    print(f"boundary: {1000 * found['boundary_s']:.1f} ms, {100 * share:.2f} % of the round")
    if options.out:
        write_json(options.out, {"preset": options.backbone, **found, "share_of_round": share})


def _measured(job: JobConfig, data: Path, scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    checkpoint = scratch / "random.safetensors"
    model = build_classifier(BackboneConfig.preset(job.backbone), seed=0)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, checkpoint)
    values = {"data_dir": str(data), "state_dir": str(scratch / "state"), "cache_dir": str(scratch / "cache")}
    policy = dataclasses.asdict(SitePolicy.for_one_machine())
    settings = {"backbone_checkpoint": str(checkpoint), "device": "cpu", "policy": policy}
    write_json(scratch / "site.json", {**values, **settings})
    runtime = SiteRuntime("benchmark", job, SiteConfig.from_file(scratch / "site.json"))
    state = initial_global_state(job)
    runtime.train_round(state, 0)
    runtime.validate(state, 1)
    started = time.perf_counter()
    initial = runtime.validate(state, 1)
    update = runtime.train_round(state, 1)
    round_s = time.perf_counter() - started
    reply = TrainReply(update.tensors, update.weight, 1, update.metrics, initial)
    repeats = options.repetitions
    parts = _parts(Process(job, runtime, scratch / "site.json"), reply, repeats)
    parts["gate_s"] = _gate(scratch, options.messages, repeats)
    parts["literal_s"] = _literal(job, scratch, repeats)
    facts = {"round_s": round_s, "payload_bytes": runtime.contract.tensor_bytes, "n_subjects": update.weight}
    return {**facts, **parts, "boundary_s": sum(parts.values())}


def _parts(process: Process, reply: TrainReply, repeats: int) -> dict[str, float]:
    of_site, of_job, guard = EgressFilter(), EgressFilter(), EgressGuard()
    of_site.set_prop(FilterContextKey.SOURCE, FilterSource.SITE)
    guard.handle_event(EventType.START_RUN, process.context())

    def guarded() -> None:
        fl_ctx = process.context()
        fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply.to_shareable(), private=True, sticky=False)
        guard.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)
        guard.handle_event(EventType.BEFORE_SEND_TASK_RESULT, fl_ctx)

    return {
        "site_filter_s": _median(lambda: of_site.process(reply.to_shareable(), process.context()), repeats),
        "job_filter_s": _median(lambda: of_job.process(reply.to_shareable(), process.context()), repeats),
        "guard_s": _median(guarded, repeats),
    }


def _gate(scratch: Path, n_messages: int, repeats: int) -> float:
    """Return the time that requests of the server take at the gate of a job's process."""
    gate = Gate(f"benchmark.{JOB_ID}", scratch)
    headers = {
        MessageHeaderKey.MSG_TYPE: MessageType.REQ,
        MessageHeaderKey.ORIGIN: "server",
        MessageHeaderKey.DESTINATION: f"benchmark.{JOB_ID}",
        MessageHeaderKey.CHANNEL: CellChannel.AUX_COMMUNICATION,
        MessageHeaderKey.TOPIC: "benchmark",
    }
    message = Message(headers, b"")
    message.set_prop(MessagePropKey.ENDPOINT, SimpleNamespace(name="benchmark"))

    def let_in() -> None:
        for _ in range(n_messages):
            if gate.incoming(message) or gate.request(message):
                raise SystemExit("the gate refused what was to be measured")

    return _median(let_in, repeats)


def _literal(job: JobConfig, scratch: Path, repeats: int) -> float:
    """Return the time of the literal guard's work on one job: at deployment, before reading, around building."""
    folder = export_job(JobSpec("benchmark", "what the literal guard reads", job), scratch / "job")
    config = next(folder.glob("*/config/config_fed_client.json"))

    def checked() -> None:
        check_app(config.parent.parent)
        check_app(config.parent.parent)
        literal = read_literal(config)
        check_same(literal, literal, "the job")
        check_same(job.to_dict(), job.to_dict(), "its settings")

    return _median(checked, repeats)


def _median(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared cohort of one site")
    parser.add_argument("--backbone", default="cinema-base", help="backbone whose adapters are sent")
    parser.add_argument("--views", type=int, default=0, help="augmented views per subject besides the plain one")
    parser.add_argument("--repetitions", type=int, default=20, help="how often each part is measured")
    parser.add_argument("--messages", type=int, default=100, help="requests to the site in a round, for the gate")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
