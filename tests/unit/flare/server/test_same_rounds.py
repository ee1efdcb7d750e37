"""One process and FLARE's aggregator treat the same contributions alike, outliers included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.model import initial_global_state
from med_duallora.engine import run_federation
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.offer import SiteUpdate
from med_duallora.site.runtime import SiteRuntime
from tests.unit.flare.server.test_aggregator import Server
from tests.unit.flare.standin import Engine
from tests.unit.tiny import same


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_an_outlier_is_left_out_in_one_process_and_in_flare(
    rule: str, tiny_job: JobConfig, tiny_sites: dict[str, SiteConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job.with_overrides(["train.n_rounds=1", f"aggregation={rule}"])
    trained, updates = SiteRuntime.train_round, {}

    def with_an_outlier(runtime: SiteRuntime, state: dict[str, np.ndarray], *more: Any, **options: Any) -> SiteUpdate:
        update = trained(runtime, state, *more, **options)
        if runtime.site == "ge":
            far = {name: state[name] + 100 * (value - state[name]) for name, value in update.tensors.items()}
            update = SiteUpdate(far, update.weight, update.metrics)
        updates[runtime.site] = update
        return update

    monkeypatch.setattr(SiteRuntime, "train_round", with_an_outlier)
    alone = run_federation(job, tiny_sites)
    server = Server(Engine(job, tmp_path), initial_global_state(job))
    server.open()
    for site, update in updates.items():
        assert server.accept(
            site, TrainReply(update.tensors, update.weight, 0, {"n_subjects": update.weight}).to_shareable()
        )
    assert same(server.close(), alone.global_state)
    (record,) = server.records()
    assert record["refused"] == [{"site": "ge", "reason": alone.rounds[0].refused["ge"]}]
    assert record["residual"] == alone.rounds[0].residual
    assert record["clipped"] == alone.rounds[0].clipped != {}, "the longer of the three that are left"
    assert record["capped"] == alone.rounds[0].capped
