"""The benchmark of a training step: every variant runs and has its place in the table."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import training_step


def test_all_variants_run_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "step.json", torch.get_num_threads()
    training_step.main(
        ["--backbones", "cinema-tiny", "--repetitions", "1", "--threads", str(threads), "--out", str(out)]
    )
    (found,) = json.loads(out.read_text())["quartiles"].values()
    assert set(found) == set(training_step.ALL)
    assert found["floor"]["ratios"] == [1.0, 1.0, 1.0]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in training_step.ALL) and "views a second" in printed


def test_peft_and_ours_train_the_same_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setattr(
        training_step.Variants,
        "_step",
        lambda self, network, logits: trained.append(  # noqa: ARG005
            sum(value.numel() for value in network.parameters() if value.requires_grad)
        ),
    )
    training_step.Variants("cinema-tiny", 1, torch.device("cpu"), "fp32").works(["ours", "peft", "full"])
    ours, peft, full = trained
    assert ours == peft < full


def test_without_peft_its_variant_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_step, "find_spec", lambda _: None)
    monkeypatch.setattr(training_step, "use_threads", lambda _: None)
    training_step.main(["--backbones", "cinema-tiny", "--repetitions", "1", "--variants", "peft"])
    printed = capsys.readouterr().out
    assert "peft is not installed" in printed and "| peft |" not in printed


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no usable CUDA device"):
        training_step.main(["--device", "cuda"])
