"""What a hundred sites cost one server: memory, time per contribution and time to aggregate.

    python -m benchmarks.scale [--backbone cinema-base] [--sites 10 30 100] [--rounds 5] [--out FILE] [--plot FILE]

The server is a process of its own, which holds the package's aggregator and receives through FLARE's message layer
(its cells, over TCP, without encryption). The sites are cells in a second process, one per site, which send one
contribution of the backbone's size each round, as FLARE's clients do. Every pair of a rule and a number of sites gets
a new server.

Memory is the server's resident set, noted after every contribution and after every aggregation. Time per contribution
is the processor time of the server's ``accept`` (check, hash, spool, record) and, as it is met by a site, the time of
the clock from sending to the answer. A ratio of 1 means flat: memory after the last contribution over memory after the
first one of the same round, memory after the last round over memory after the first, and the time of the last quarter
of a round's contributions over that of the first quarter. The first round warms up and is in no figure but the peak.
"""

import argparse
import gc
import itertools
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from nvflare.apis.client import Client
from nvflare.apis.fl_constant import ServerCommandKey, ServerCommandNames
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellChannel, new_cell_message
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.local.processes import free_port
from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import JobConfig
from med_duallora.support.devices import use_threads
from med_duallora.support.files import write_json

JOB_ID = "scale"
PATIENCE_S = 60.0
MIB = 2**20
PROCESSES = multiprocessing.get_context("forkserver")
"""Processes that begin with this module loaded and nothing running."""
ROUTE = {"channel": CellChannel.SERVER_COMMAND, "topic": ServerCommandNames.SUBMIT_UPDATE}
"""FLARE's cell streams only what is sent with these as keyword arguments; by position it takes another way."""
COLUMNS = {
    "rule": "rule",
    "n_sites": "sites",
    "memory_mib": "memory MiB",
    "memory_over_sites": "over sites",
    "memory_over_rounds": "over rounds",
    "accept_ms": "accept ms",
    "accept_over_sites": "over sites",
    "met_ms": "met ms",
    "aggregate_s": "aggregate s",
}


class Engine:
    """As much of FLARE's engine as the aggregator asks for."""

    def __init__(self, job: JobConfig, folder: Path) -> None:
        self.folder = folder
        self.components = {JOB_COMPONENT: FederatedJob(job.to_dict())}

    def get_component(self, name: str) -> object:
        """Return a component by id."""
        return self.components.get(name)

    def get_workspace(self) -> "Engine":
        """Return where the run's folder is asked for."""
        return self

    def get_app_dir(self, job_id: str) -> str:
        """Return the run's folder."""
        del job_id  # there is one
        return str(self.folder)

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tell nobody: the aggregator's own scalars have no TensorBoard here."""


class Server:
    """The aggregator behind a cell, and what it cost.

    Args:
        job: whose contract and rule count.
        url: where the cell listens.
        folder: for the server's records.
    """

    def __init__(self, job: JobConfig, url: str, folder: Path) -> None:
        self.engine, self.round_index = Engine(job, folder), 0
        self.aggregator, self.previous = DualLoRAAggregator(), initial_global_state(job)
        self.process = psutil.Process()
        self.accept_s: list[float] = []
        self.memory: list[int] = []
        self.cell = Cell("server", url, secure=False, credentials={})
        self.cell.register_request_cb(**ROUTE, cb=self.submitted)
        self.cell.start()

    def context(self) -> FLContext:
        """Return the context of the running round."""
        fl_ctx = FLContextManager(self.engine, "server", JOB_ID).new_context()
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, self.round_index, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(self.previous, {}), private=True, sticky=False)
        return fl_ctx

    def submitted(self, request: Message) -> Message:
        """Take a contribution, marked as FLARE's server marks it: with the site that it came from."""
        result, site = request.payload, str(request.get_header(MessageHeaderKey.ORIGIN))
        fl_ctx = self.context()
        result.set_header(ServerCommandKey.FL_CLIENT, Client(site, "token"))
        fl_ctx.set_peer_context(FLContextManager(None, site, JOB_ID).new_context())
        started = time.thread_time()
        accepted = self.aggregator.accept(result, fl_ctx)
        self.accept_s.append(time.thread_time() - started)
        self.memory.append(self.process.memory_info().rss)
        return new_cell_message({}, Shareable({"accepted": accepted}))

    def open(self, round_index: int) -> None:
        """Open a round."""
        self.round_index, self.accept_s, self.memory = round_index, [], []
        self.aggregator.handle_event(AppEventType.ROUND_STARTED, self.context())

    def close(self) -> dict[str, Any]:
        """Aggregate, and return what the round cost."""
        started, clock = time.process_time(), time.perf_counter()
        result = self.aggregator.aggregate(self.context())
        spent = {"aggregate_s": time.process_time() - started, "aggregate_clock_s": time.perf_counter() - clock}
        self.previous = dict(result["DXO"]["data"])
        gc.collect()
        after = self.process.memory_info().rss
        return {"accept_s": self.accept_s, "memory": self.memory, "memory_after": after, **spent}


def serve(pipe: Connection, job: dict[str, Any], url: str, folder: str) -> None:
    """Run a server until it is stopped: a round is opened and closed when the pipe says so."""
    use_threads(1)
    nvflare_fobs_initialize()
    server = Server(JobConfig.from_dict(job), url, Path(folder))
    pipe.send("listening")
    while True:
        server.open(pipe.recv())
        pipe.send("open")
        pipe.recv()
        pipe.send(server.close())


def contribution(contract: EgressContract, seed: int, round_index: int) -> Shareable:
    """Return a site's reply: random tensors of the contract's shapes, small enough that nothing is left out."""
    rng = np.random.default_rng([seed, round_index])
    tensors = {
        name: (0.01 * rng.standard_normal(spec.shape)).astype(np.float32) for name, spec in contract.tensors.items()
    }
    return TrainReply(tensors, 10.0, round_index, {"train_loss": 0.5, "n_subjects": 10.0}).to_shareable(pack=True)


def sent(cell: Cell, reply: Shareable) -> float:
    """Send a reply and return the seconds until its answer (SystemExit: it was not taken)."""
    started = time.perf_counter()
    answer = cell.send_request(**ROUTE, target="server", request=new_cell_message({}, reply), timeout=PATIENCE_S)
    seconds = time.perf_counter() - started
    if not isinstance(answer.payload, Shareable) or not answer.payload.get("accepted"):
        code = answer.get_header(MessageHeaderKey.RETURN_CODE)
        raise SystemExit(f"the server did not take a contribution ({code}); its log above says why")
    return seconds


def send(pipe: Connection, job: dict[str, Any], url: str, n_sites: int) -> None:
    """Run the sites until they are stopped: for every round that it names, one contribution of each."""
    use_threads(1)
    nvflare_fobs_initialize()
    contract = EgressContract.for_job(JobConfig.from_dict(job))
    cells = [Cell(f"site-{i:03d}", url, secure=False, credentials={}) for i in range(n_sites)]
    for cell in cells:
        cell.start()
        while "server" not in cell.core_cell.agents:  # FLARE connects in the background
            time.sleep(0.01)
    while True:
        index = pipe.recv()
        pipe.send([sent(cell, contribution(contract, seed, index)) for seed, cell in enumerate(cells)])


def measured(job: JobConfig, n_sites: int, n_rounds: int) -> dict[str, Any]:
    """Return what the rounds of one rule with so many sites cost a new server."""
    url = f"tcp://localhost:{free_port()}"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(child(serve, job.to_dict(), url, folder))
        server.recv()
        sites = stack.enter_context(child(send, job.to_dict(), url, n_sites))
        rounds = [_round(server, sites, index) for index in range(n_rounds)]
    return {"rule": job.aggregation, "n_sites": n_sites, **summary(rounds), "rounds": rounds}


@contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Run a function in a process of its own, with one end of a pipe; the process ends with the block."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_contained, args=(work, there, *arguments), daemon=True)
    process.start()
    there.close()  # else a process that ended early would never be noticed
    try:
        yield here
    except EOFError as error:
        raise SystemExit("a process of the benchmark ended early; its output above says why") from error
    finally:
        process.kill()
        process.join()


def _contained(work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # the threads of FLARE's cells would keep a process that failed


def _round(server: Connection, sites: Connection, index: int) -> dict[str, Any]:
    server.send(index)
    server.recv()
    sites.send(index)
    met = sites.recv()
    server.send("all sent")
    return {**server.recv(), "met_s": met}


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures of a table's row; the first round, in which everything is loaded, warms up."""
    warm = rounds[1:] or rounds
    accept = [seconds for one in warm for seconds in one["accept_s"]]
    quarter = max(len(warm[0]["accept_s"]) // 4, 1)
    first = median(seconds for one in warm for seconds in one["accept_s"][:quarter])
    last = median(seconds for one in warm for seconds in one["accept_s"][-quarter:])
    return {
        "memory_mib": max(max(one["memory"]) for one in rounds) / MIB,
        "memory_over_sites": max(one["memory"][-1] / one["memory"][0] for one in warm),
        "memory_over_rounds": warm[-1]["memory_after"] / warm[0]["memory_after"],
        "accept_ms": 1000 * median(accept),
        "accept_over_sites": last / first,
        "met_ms": 1000 * median(seconds for one in warm for seconds in one["met_s"]),
        "aggregate_s": median(one["aggregate_s"] for one in warm),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = (f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in COLUMNS)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="cinema-base", help="backbone whose adapters are sent")
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 30, 100], help="numbers of sites")
    parser.add_argument(
        "--rules", nargs="+", choices=list(AGGREGATIONS), default=list(AGGREGATIONS), help="aggregations"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per server; the first one warms up")
    parser.add_argument("--out", type=Path, help="write every number as JSON")
    parser.add_argument("--plot", type=Path, help="draw memory and times (.svg or .png)")
    options = parser.parse_args(arguments)
    PROCESSES.set_forkserver_preload([DualLoRAAggregator.__module__, initial_global_state.__module__, Cell.__module__])
    n_bytes = EgressContract.for_job(JobConfig(backbone=options.backbone)).tensor_bytes
    rows: list[dict[str, Any]] = []
    for rule, n_sites in itertools.product(options.rules, options.sites):
        job = JobConfig(backbone=options.backbone).with_overrides([f"aggregation={rule}"])
        rows.append(measured(job, n_sites, options.rounds))
        print(table(rows).splitlines()[-1], flush=True)
        if options.out:
            write_json(options.out, {"backbone": options.backbone, "tensor_bytes": n_bytes, "servers": rows})
    print(
        f"\n{options.backbone}: {n_bytes} bytes of tensors in a contribution, {options.rounds} rounds\n\n{table(rows)}"
    )
    if options.plot:
        from benchmarks.scale_plot import draw  # here, so that the server's memory is that of a server

        draw(rows, options.plot)


if __name__ == "__main__":
    main()
