"""A site of the federation that sends numbers inside the contract, made to turn the average against the others."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import JobConfig
from tests.unit.flare.server.test_aggregator import Server
from tests.unit.flare.standin import Engine
from tests.unit.tiny import random_payload, same

Update = dict[str, np.ndarray]
HUGE = np.float32(3e38)


@dataclass
class Round:
    """A round in which honest sites agree in part and others try to spoil it.

    Args:
        server: the real aggregator.
        honest: the updates of honest sites; their names begin with ``h``.
        replies: what everybody sends.
    """

    server: Server
    contract: EgressContract
    honest: list[Update] = field(default_factory=list)
    replies: dict[str, TrainReply] = field(default_factory=dict)

    def agree(self, n_sites: int, common: float = 0.7, scale: float = 0.01) -> None:
        """Let honest sites train; ``common`` is the cosine between each and the direction that they share."""
        shared, rest = random_payload(self.contract, 0), np.sqrt(1 - common**2)
        for number in range(n_sites):
            own = random_payload(self.contract, number + 1)
            update = {name: scale * (common * shared[name] + rest * own[name]) for name in own}
            self.honest.append(update)
            self.send(f"h{number}", update)

    def send(self, site: str, update: Update, weight: float = 6.0, **more: Any) -> None:
        """Let a site answer with the global adapter plus an update."""
        with np.errstate(over="ignore"):
            tensors = {name: (value + update[name]).astype(np.float32) for name, value in self.server.previous.items()}
        self.replies[site] = replace(TrainReply(tensors, weight, 0, {"train_loss": 0.5}), **more)

    def mean(self) -> Update:
        """Return the mean of the honest updates."""
        return {name: np.mean([update[name] for update in self.honest], axis=0) for name in self.server.previous}

    def flipped(self, factor: float) -> Update:
        """Return the opposite of the honest mean, at a multiple of the honest sites' median norm."""
        mean = self.mean()
        length = factor * float(np.median([norm(update) for update in self.honest])) / norm(mean)
        return {name: -length * value for name, value in mean.items()}

    def result(self) -> dict[str, np.ndarray]:
        """Close the round and return the next global adapter."""
        self.server.open()
        for site, reply in self.replies.items():
            self.server.accept(site, reply.to_shareable())
        return self.server.close()

    def moved(self) -> Update:
        """Close the round and return by how much the global adapter moved."""
        return {name: value.astype(float) - self.server.previous[name] for name, value in self.result().items()}

    @property
    def record(self) -> dict[str, Any]:
        """Return the line of the round in the server's record."""
        return self.server.records()[-1]


def norm(update: Update) -> float:
    return float(np.sqrt(sum(np.square(value.astype(float)).sum() for value in update.values())))


def cosine(one: Update, other: Update) -> float:
    return float(sum((one[name] * other[name]).sum() for name in one)) / (norm(one) * norm(other))


@pytest.fixture
def job() -> JobConfig:
    return JobConfig(backbone="cinema-tiny").with_overrides(
        ["experiment=poison", "train.n_rounds=2", "train.compare_alone=false"]
    )


@pytest.fixture
def attacked(job: JobConfig, tmp_path: Path) -> Round:
    contract = EgressContract.for_job(job)
    return Round(Server(Engine(job, tmp_path), random_payload(contract, 99, 0.1)), contract)


def one_of(n_sites: int, factor: float, weight: float, common: float = 0.7) -> Callable[[Round], None]:
    """One poisoned site among honest ones: its update turned round, at a multiple of the median norm."""

    def apply(attacked: Round) -> None:
        attacked.agree(n_sites - 1, common)
        attacked.send("mallory", attacked.flipped(factor), weight)

    return apply


def colluding(attackers: int, honest: int, factor: float, weight: float = 6.0) -> Callable[[Round], None]:
    def apply(attacked: Round) -> None:
        attacked.agree(honest)
        for number in range(attackers):
            attacked.send(f"mallory{number}", attacked.flipped(factor), weight)

    return apply


TURNED: list[tuple[str, Callable[[Round], None], str]] = [
    (
        "one of four turns its update round and claims 10^9 subjects",
        one_of(4, 1.0, 1e9),
        "its weight counts as 1.4 times the median",
    ),
    ("one of four turns its update round, 9.5 times as long", one_of(4, 9.5, 6.0), "scaled down to the median length"),
    ("one of four does both", one_of(4, 9.5, 1e9), "both are limited"),
    ("one of four does both, just below the limits", one_of(4, 1.0, 8.3), "the average keeps its direction"),
    (
        "one of four does both, where the others have nothing in common",
        one_of(4, 9.5, 1e9, common=0.0),
        "the average keeps its direction",
    ),
    ("one of three does both", one_of(3, 9.5, 1e9), "the average keeps its direction"),
    ("one of ten does both", one_of(10, 9.5, 1e9), "both are limited"),
    (
        "two of five turn their updates round, just as long as the others'",
        colluding(2, 3, 1.0),
        "the majority keeps the direction",
    ),
]
"""What a site or several try, and what happens; the average must keep the direction of the honest sites."""


@pytest.mark.parametrize(("trick", "attack", "_what"), TURNED, ids=[row[0] for row in TURNED])
def test_the_average_is_not_turned_against_the_honest_sites(
    trick: str, attack: Callable[[Round], None], _what: str, attacked: Round
) -> None:
    attack(attacked)
    assert cosine(attacked.moved(), attacked.mean()) > 0, trick
    assert attacked.record["refused"] == [], "it is inside the contract"


def test_who_was_limited_and_by_how_much_is_in_the_record_and_in_the_log(
    attacked: Round, caplog: pytest.LogCaptureFixture
) -> None:
    one_of(4, 9.5, 1e9)(attacked)
    attacked.result()
    assert attacked.record["clipped"]["mallory"] == pytest.approx(1 / 9.5, rel=0.05)
    assert attacked.record["capped"] == {"mallory": pytest.approx(8.4)}
    assert attacked.record["sites"]["mallory"]["weight"] == 1e9, "what it claimed"
    assert "updates scaled down" in caplog.text and "mallory to 0.10" in caplog.text
    assert "mallory with 8.4" in caplog.text


def everywhere(value: np.float32) -> Callable[[Round], Update]:
    return lambda attacked: {name: np.full_like(tensor, value) for name, tensor in attacked.server.previous.items()}


def in_one_element(attacked: Round) -> Update:
    update = everywhere(np.float32(0))(attacked)
    next(iter(update.values())).flat[0] = HUGE
    return update


REFUSED: list[tuple[str, int, Callable[[Round], Update], str]] = [
    ("numbers of 3e38 beside one honest site", 1, everywhere(HUGE), "changes a tensor by"),
    ("numbers of 3e38 beside nobody", 0, everywhere(HUGE), "changes a tensor by"),
    ("a single number of 3e38 beside one honest site", 1, in_one_element, "changes a tensor by"),
    ("numbers of 100 beside one honest site", 1, everywhere(np.float32(100)), "changes a tensor by"),
    ("an update of 20 times the median among four", 3, lambda attacked: attacked.flipped(20), "times the median"),
]
"""Beyond what any training gives, or far from a majority: left out, and the others count as if it had not come."""


@pytest.mark.parametrize(("trick", "n_honest", "update", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_no_training_gives_is_left_out(
    trick: str, n_honest: int, update: Callable[[Round], Update], reason: str, attacked: Round
) -> None:
    attacked.agree(n_honest)
    honest = attacked.result() if n_honest else attacked.server.previous
    attacked.send("mallory", update(attacked))
    assert same(attacked.result(), honest), trick
    (refused,) = attacked.record["refused"]
    assert refused["site"] == "mallory" and reason in refused["reason"]


def test_where_most_sites_send_nothing_new_one_site_cannot_move_the_adapter(attacked: Round) -> None:
    """A median of 0 gives no scale to compare with; before, anything passed."""
    for number in range(3):
        attacked.send(f"h{number}", everywhere(np.float32(0))(attacked))
    attacked.send("mallory", random_payload(attacked.contract, 7), weight=1e9)
    assert same(attacked.result(), attacked.server.previous)
    assert attacked.record["clipped"] == {"mallory": 0.0}


def test_a_weight_that_is_not_the_number_of_subjects_is_refused(attacked: Round) -> None:
    attacked.agree(2)
    honest = attacked.result()
    attacked.send("mallory", attacked.flipped(1), 1e4, metrics={"train_loss": 0.5, "n_subjects": 6.0})
    assert same(attacked.result(), honest)
    assert "says that it trained on 6 subjects" in attacked.record["refused"][0]["reason"]


@pytest.mark.parametrize("weight", [50.0, 1e9, 1e-9])
def test_a_weight_in_a_job_of_uniform_weights_counts_as_one(
    weight: float, job: JobConfig, attacked: Round, tmp_path: Path
) -> None:
    uniform = Server(Engine(job.with_overrides(["weighting=uniform"]), tmp_path / "uniform"), attacked.server.previous)
    attacked.server = uniform
    attacked.agree(1)
    attacked.send("h0", attacked.honest[0], 1.0)
    attacked.send("mallory", random_payload(attacked.contract, 7, 0.01), weight)
    moved = attacked.moved()
    for name, tensor in attacked.server.previous.items():
        sent = [reply.tensors[name].astype(float) - tensor for reply in attacked.replies.values()]
        np.testing.assert_allclose(moved[name], np.mean(sent, axis=0), rtol=0, atol=1e-6)
    assert attacked.record["capped"] == {"mallory": 1.0}


@pytest.mark.parametrize("n_attackers", [1, 2, 3, 4])
def test_colluding_sites_count_as_so_many_median_sites_and_not_more(n_attackers: int, attacked: Round) -> None:
    """What holds whatever they send: the adapter moves no further than a median update, and they are so much of it.

    More than that no rule over one round can promise: a majority decides what the median is.
    """
    attacked.agree(5)
    for number in range(n_attackers):
        attacked.send(f"mallory{number}", attacked.flipped(9.5), 1e9)
    moved, lengths = attacked.moved(), sorted(norm(update) for update in attacked.honest)
    assert norm(moved) <= lengths[-1] * (1 + 1e-4)
    alone = {name: np.zeros_like(value) for name, value in moved.items()}
    for update in attacked.honest:
        alone = {name: value + update[name] / 5 for name, value in alone.items()}
    share = 1.4 * n_attackers / (1.4 * n_attackers + 5)
    away = norm({name: moved[name] - (1 - share) * alone[name] for name in moved})
    assert away <= (share + 0.02) * lengths[-1], "their part is their share of a median update"


@pytest.mark.parametrize("n_attackers", [1, 2])
def test_the_geometric_median_stays_nearer_to_the_honest_products_than_the_mean(
    n_attackers: int, job: JobConfig, attacked: Round, tmp_path: Path
) -> None:
    """Attackers below all limits: a minority of five, as long as the others and with their weight."""
    attacked.agree(5 - n_attackers)
    for number in range(n_attackers):
        attacked.send(f"mallory{number}", attacked.flipped(1.0))
    away = {}
    for rule in ("svd", "geometric-median"):
        engine = Engine(job.with_overrides([f"aggregation={rule}"]), tmp_path / rule)
        attacked.server = Server(engine, attacked.server.previous)
        found, lost = attacked.result(), 0.0
        for b, a in attacked.contract.pairs:
            honest = [
                reply.tensors[b].astype(float) @ reply.tensors[a].astype(float)
                for site, reply in attacked.replies.items()
                if site.startswith("h")
            ]
            lost += float(np.square(found[b].astype(float) @ found[a] - np.mean(honest, axis=0)).sum())
        away[rule] = lost
    assert away["geometric-median"] < away["svd"]
