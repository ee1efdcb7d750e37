"""What a prediction costs beside a plain forward pass of the same network.

    python benchmarks/predict.py --scan SCAN [--es ES] [--backbone cinema-base] [--repetitions 10] [--out cost.json]

SCAN is whatever ``med-duallora predict --scan`` takes. The network has random weights, because its values change no
time. The forward pass is that of the adapted network on an input that is ready in memory; the prediction reads SCAN
from disk, prepares it where it is raw, and says what speaks against trusting it. On a CPU the process's own time is
counted, so that what else the machine does meets neither; all parts take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors.torch import save_file

from med_duallora.backbone import BackboneConfig, build_classifier, checkpoint_sha256
from med_duallora.backbone.inputs import to_input
from med_duallora.boundary.lineage import ALONE
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.inference.model import TrainedModel
from med_duallora.inference.saved import SavedModel
from med_duallora.inference.scan import ScanSource
from med_duallora.settings.config import JobConfig
from med_duallora.site.model import network_of
from med_duallora.site.reference import fit_reference
from med_duallora.site.state import SiteState
from med_duallora.support.devices import use_threads
from med_duallora.support.files import write_json

N_TRAINING = 40


def untrained(backbone: str, folder: Path, device: str) -> TrainedModel:
    """Return a model of the size of a trained one."""
    job = JobConfig(backbone=backbone)
    path = folder / "backbone.safetensors"
    weights = build_classifier(BackboneConfig.preset(backbone)).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    network = network_of(job, path, device)
    n_features = 2 * BackboneConfig.preset(backbone).embed_dim
    places = (path, path, "0" * 64, 10)
    subject = PreparedSubject("s", "NOR", 0, "ge", "c", "train", *places, spacing=(1.4, 1.4, 8.0))
    reference = fit_reference(
        np.random.default_rng(0).standard_normal((N_TRAINING, n_features)), [subject] * N_TRAINING
    )
    kept, sent = network.values(network.plan.kept), network.values(network.plan.sent)
    state = SiteState(0, kept, {}, "", sent, network.head_norm.statistics(), reference)
    saved = SavedModel("benchmark", job, checkpoint_sha256(path), ALONE, state)
    return TrainedModel(saved, path, device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long it takes: seconds of the processor, or with a GPU of the clock."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def main() -> None:
    """Measure, print and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--es", type=Path)
    parser.add_argument("--backbone", default="cinema-base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(options.threads)
    source = ScanSource(options.scan, options.es)
    with tempfile.TemporaryDirectory() as folder:
        model = untrained(options.backbone, Path(folder), options.device)
    scan, device, network = source.read(), model.source.device, model.network
    x = torch.from_numpy(to_input(scan.volume, BackboneConfig.preset(options.backbone)))[None].to(device)

    def forward() -> object:
        with torch.no_grad():
            return network(x)

    works: dict[str, Callable[[], object]] = {
        "forward pass": forward,
        "prediction of a scan on disk": lambda: model.predict(source),
        "reading and preparing": source.read,
    }
    for work in works.values():
        work()
    times = [{name: seconds(work, device) for name, work in works.items()} for _ in range(options.repetitions)]
    found = {name: median(row[name] for row in times) for name in works}
    ratios = {name: median(row[name] / row["forward pass"] for row in times) for name in works}
    for name, value in found.items():
        print(f"{name:32s} {value:8.3f} s  {ratios[name]:6.3f} x")
    if options.out:
        facts = {"backbone": options.backbone, "device": str(device), "threads": options.threads}
        write_json(options.out, {**facts, "seconds": found, "ratios": ratios})


if __name__ == "__main__":
    main()
