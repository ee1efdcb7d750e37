import json

import pytest

from med_duallora.commands import pretrain
from med_duallora.errors import ArtifactError, ConfigError, InputError


@pytest.fixture
def parse():
    import argparse

    parser = argparse.ArgumentParser()
    pretrain.add_parser(parser.add_subparsers())
    return lambda *words: parser.parse_args(["pretrain", *map(str, words)])


@pytest.fixture
def words(tiny_cohorts, tmp_path):
    common = ["--backbone", "cinema-tiny", "--batch-size", 4, "--threads", 1]
    return ["--data", tiny_cohorts["siemens"], "--out", tmp_path / "w.safetensors", *common]


def test_command_writes_checkpoint_manifest_and_curve(parse, words, tmp_path, capsys):
    assert pretrain.run(parse(*words, "--epochs", 1)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "w.json", "w.png"}
    # ten subjects in batches of four
    assert json.loads((tmp_path / "w.json").read_text())["recipe"]["n_steps"] == 3
    assert "held out" in capsys.readouterr().out


def test_resumed_command_keeps_its_length_and_needs_a_run(parse, words, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="no run to resume"):
        pretrain.run(parse(*words, "--resume"))

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("med_duallora.pretraining.export.export", interrupt)
        pretrain.run(parse(*words, "--steps", 2))
    assert pretrain.run(parse(*words, "--resume")) == 0
    assert json.loads((tmp_path / "w.json").read_text())["recipe"]["n_steps"] == 2


def test_what_cost_hours_is_never_overwritten(parse, words, tmp_path):
    (tmp_path / "w.safetensors").write_text("weights")
    with pytest.raises(InputError, match=r"w\.safetensors exists, and may have cost hours"):
        pretrain.run(parse(*words, "--steps", 1))
    assert (tmp_path / "w.safetensors").read_text() == "weights"
    (tmp_path / "w.safetensors").rename(tmp_path / "w.run.safetensors")
    with pytest.raises(InputError, match="holds an interrupted run: --resume continues it"):
        pretrain.run(parse(*words, "--steps", 1))
    assert (tmp_path / "w.run.safetensors").read_text() == "weights"


@pytest.mark.parametrize("text", ["nan", "1e400", "-1", "0", "soon", "9" * 400])
@pytest.mark.parametrize("option", ["--epochs", "--minutes", "--steps"])
def test_a_length_that_is_none_is_bad_usage(option, text, parse, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*words, f"{option}={text}")
    assert ended.value.code == 2
    assert "is not a" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--batch-size=1000000", "--lr=inf", "--lr=nan", "--motion-weight=inf", "--seed=-1"])
def test_a_number_out_of_range_is_found_before_anything_is_read(option, parse, words, tmp_path):
    with pytest.raises(ConfigError, match=r"pretrain\."):
        pretrain.run(parse(*words, option))
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_turned_into_steps(parse, words, tmp_path, capsys):
    assert pretrain.run(parse(*words, "--minutes", 0.002)) == 0
    assert "minutes are" in capsys.readouterr().err


def test_other_suffix_is_refused(parse, words):
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        pretrain.run(parse(*words, "--out", "weights.pt"))
