import json
from pathlib import Path

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import ArtifactError
from med_duallora.flare.wire.running_adapter import RunningAdapter, packed, unpacked
from med_duallora.server.artifact import save_adapter
from tests.unit.tiny import random_payload


@pytest.fixture
def adapter(contract: EgressContract, tmp_path: Path) -> Path:
    return save_adapter(tmp_path, "adapter_last", random_payload(contract), {"round": 2})


def test_an_adapter_comes_back_as_it_was(adapter: Path) -> None:
    rounds = [{"round": index} for index in range(4)]
    found = unpacked(json.loads(json.dumps(packed(adapter, 0, rounds))))
    assert found == RunningAdapter(adapter.read_bytes(), adapter.with_suffix(".json").read_bytes(), rounds[1:3])


def test_a_known_round_is_not_sent_again(adapter: Path) -> None:
    assert packed(adapter, 2) == {}
    assert packed(adapter, 1)
    assert unpacked({}) is None


def test_before_the_first_round_there_is_none(tmp_path: Path) -> None:
    assert packed(tmp_path / "adapter_last.safetensors", -1) == {}


@pytest.mark.parametrize("answer", [{"manifest": "{}"}, {"tensors": "?", "manifest": "{}"}, {"tensors": 3}])
def test_another_answer_is_an_error(answer: dict[str, object]) -> None:
    with pytest.raises(ArtifactError):
        unpacked(answer)
