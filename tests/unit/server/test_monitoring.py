from med_duallora.boundary.contract import EgressContract
from med_duallora.measures import MEASURES, Place
from med_duallora.server.monitoring import configuration_text, round_summary
from med_duallora.settings.config import JobConfig


def record(*sites: dict[str, float], n_refused: int = 0) -> dict:
    return {
        "round": 3,
        "seconds": 2.5,
        "residual": 0.125 if sites else None,
        "refused": [{"site": "x", "reason": "y"}] * n_refused,
        "clipped": {"0": 0.5, "1": 0.25} if sites else {},
        "capped": {"1": 14.0} if sites else {},
        "sites": {str(i): {"metrics": values, "payload_bytes": 100 + i, "weight": 1} for i, values in enumerate(sites)},
    }


def test_a_round_in_the_server_s_words() -> None:
    found = round_summary(record({"train_loss": 0.5, "val_balanced_accuracy": 0.5}, {"train_loss": 1.0}, n_refused=1))
    assert found == {
        "n_contributions": 2,
        "n_refused": 1,
        "n_limited": 2,
        "seconds": 2.5,
        "payload_bytes_max": 101,
        "residual": 0.125,
        "train_loss": 0.75,
        "val_balanced_accuracy": 0.5,
    }


def test_a_round_without_contributions_has_no_number_that_was_not_computed() -> None:
    assert round_summary(record(n_refused=2)) == {"n_contributions": 0, "n_refused": 2, "n_limited": 0, "seconds": 2.5}


def test_every_number_of_the_summary_has_an_entry_that_says_so() -> None:
    found = round_summary(record(dict.fromkeys(MEASURES, 1.0)))
    assert {name for name in found if name not in MEASURES or Place.SERVER not in MEASURES[name].places} == set()
    assert all(MEASURES[name].tag for name in found), "TensorBoard draws it"


def test_the_configuration_is_a_table_of_every_setting() -> None:
    job = JobConfig(backbone="cinema-tiny", experiment="study-1")
    contract = EgressContract.for_job(job)
    lines = configuration_text(job, contract, job_id="7|7").splitlines()
    assert lines[2:4] == ["| setting | value |", "|---|---|"]
    assert "| job_id | 7\\|7 |" in lines
    assert "| experiment | study-1 |" in lines
    assert "| lora.targets | q, kv |" in lines
    assert "| train.lr | 0.005 |" in lines
    assert any(contract.sha256 in line for line in lines)
    assert "not for diagnosis" in lines[0]
