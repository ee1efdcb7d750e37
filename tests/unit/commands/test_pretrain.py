import json
import shutil

import pytest

from med_duallora.cohorts.nifti import read_nifti, write_nifti
from med_duallora.cohorts.prepared import PreparedCohort, label_path
from med_duallora.commands import pretrain
from med_duallora.errors import ArtifactError, CohortError, ConfigError, InputError
from med_duallora.support.files import sha256_of_file
from tests.unit.truths import truth_of, with_label_maps


@pytest.fixture
def parse():
    import argparse

    parser = argparse.ArgumentParser()
    pretrain.add_parser(parser.add_subparsers())
    return lambda *words: parser.parse_args(["pretrain", *map(str, words)])


@pytest.fixture
def bare_words(tiny_cohorts, tmp_path):
    """A run on a cohort without label maps."""
    common = ["--backbone", "cinema-tiny", "--batch-size", 4, "--threads", 1]
    return ["--data", tiny_cohorts["siemens"], "--out", tmp_path / "w.safetensors", *common]


@pytest.fixture
def words(bare_words, tiny_cohorts, tmp_path_factory):
    cohort = with_label_maps(tiny_cohorts["siemens"], tmp_path_factory.mktemp("mapped") / "siemens")
    return ["--data", cohort, *bare_words[2:]]


@pytest.fixture
def interrupted(monkeypatch):
    """Run the command and press Ctrl-C where its export calls a function, by default before it writes anything."""

    def run(options, function="export"):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"med_duallora.pretraining.export.{function}", interrupt)
            pretrain.run(options)

    return run


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

    def interrupt(*_, **__):
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


@pytest.mark.parametrize("name", ["w.json", "w.png"])
def test_what_lies_beside_the_checkpoint_is_not_overwritten_either(parse, words, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name} exists, and w\.safetensors would replace it"):
        pretrain.run(parse(*words, "--steps", 1))
    assert (tmp_path / name).read_text() == "mine"


def test_an_export_that_was_interrupted_leaves_no_checkpoint_and_can_be_resumed(parse, words, tmp_path, interrupted):
    interrupted(parse(*words, "--steps", 2), "write_json")
    assert {path.name for path in tmp_path.iterdir()} == {"w.png", "w.run.safetensors"}
    assert pretrain.run(parse(*words, "--steps", 2, "--resume")) == 0
    manifest = json.loads((tmp_path / "w.json").read_text())
    assert manifest["sha256"] == sha256_of_file(tmp_path / "w.safetensors")


def test_a_resumed_run_of_another_length_is_refused_and_the_difference_named(parse, words, tmp_path, interrupted):
    interrupted(parse(*words, "--epochs", 1))
    with pytest.raises(ArtifactError, match=r"another recipe: n_steps 3, now 5; give the same one"):
        pretrain.run(parse(*words, "--epochs", 2, "--resume"))
    assert pretrain.run(parse(*words, "--epochs", 1, "--resume")) == 0


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


@pytest.fixture
def truth(tiny_cohorts, tmp_path):
    """A table of true values of the tiny cohort's subjects, outside the folder that the command writes to."""
    (tmp_path / "raw").mkdir()
    return truth_of(tiny_cohorts["siemens"], tmp_path / "raw" / "truth.csv")


def test_the_true_values_make_it_a_training_on_anatomy(parse, words, truth, tmp_path, capsys):
    assert pretrain.run(parse(*words, "--epochs", 1, "--truth", truth)) == 0
    manifest = json.loads((tmp_path / "w.json").read_text())
    assert manifest["objective"].startswith("anatomy (lv_edv")
    assert manifest["recipe"]["lr"] == pytest.approx(5e-4)
    assert "init" not in manifest
    assert "R2 lv_ef" in capsys.readouterr().out


def test_label_maps_are_needed_unless_they_are_left_out(parse, bare_words, truth, tmp_path):
    with pytest.raises(CohortError, match=r"_ed_gt\.nii\.gz is not there: the subject was prepared without a segm"):
        pretrain.run(parse(*bare_words, "--steps", 1, "--truth", truth))
    assert pretrain.run(parse(*bare_words, "--steps", 1, "--truth", truth, "--map-weight", 0)) == 0
    assert "label maps" not in json.loads((tmp_path / "w.json").read_text())["objective"]


def test_the_table_of_other_phantoms_is_refused(parse, words, truth, tmp_path):
    truth.write_text(truth.read_text().replace(",NOR,", ",HCM,"))
    with pytest.raises(CohortError, match="is of other phantoms: 5 of 10 subjects have another disease there"):
        pretrain.run(parse(*words, "--steps", 1, "--truth", truth))
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


def test_phantoms_that_share_names_are_refused(parse, words, truth, tmp_path):
    """Two runs of `phantom` name their subjects alike, and the table's row can be that of one of them only."""
    for name in ("a", "b"):
        shutil.copytree(words[1], tmp_path / "raw" / name)
    with pytest.raises(CohortError, match="holds 10 subjects twice"):
        pretrain.run(parse("--data", tmp_path / "raw", *words[2:], "--steps", 1, "--truth", truth))


@pytest.mark.parametrize("which", ["image", "label map"])
def test_a_run_is_not_resumed_on_other_voxels(parse, words, truth, interrupted, which):
    """The table's hash of the source says nothing of a map or volume that was changed since."""
    given = [*words, "--truth", truth, "--steps", 2]

    interrupted(parse(*given))
    subject = PreparedCohort.read(words[1]).subjects[0]
    path = subject.ed_path if which == "image" else label_path(subject.ed_path)
    image = read_nifti(path)
    write_nifti(path, image.data[::-1], image.affine)
    with pytest.raises(ArtifactError, match="a run on other data: other subjects, volumes, values or label maps"):
        pretrain.run(parse(*given, "--resume"))


def test_anatomy_starts_from_what_a_masked_autoencoder_left(parse, words, truth, tmp_path):
    assert pretrain.run(parse(*words, "--steps", 1)) == 0
    mae = tmp_path / "w.safetensors"
    further = [*words[:3], tmp_path / "anatomy.safetensors", *words[4:]]
    assert pretrain.run(parse(*further, "--steps", 1, "--truth", truth, "--init", mae)) == 0
    manifest = json.loads((tmp_path / "anatomy.json").read_text())
    assert manifest["init"]["objective"].startswith("masked autoencoder")
    assert manifest["recipe"]["init_sha256"] == manifest["init"]["sha256"]


def test_a_resumed_training_on_anatomy_keeps_its_start(parse, words, truth, tmp_path, interrupted):
    assert pretrain.run(parse(*words, "--steps", 1)) == 0
    further = [*words[:3], tmp_path / "anatomy.safetensors", *words[4:], "--truth", truth]

    interrupted(parse(*further, "--steps", 2, "--init", tmp_path / "w.safetensors"))
    with pytest.raises(ArtifactError, match="another recipe"):
        pretrain.run(parse(*further, "--resume"))
    assert pretrain.run(parse(*further, "--resume", "--init", tmp_path / "w.safetensors")) == 0


@pytest.mark.parametrize("option", ["--mask-ratio=0.5", "--frames=single", "--motion-weight=2", "--norm-target"])
def test_options_of_the_other_objective_are_refused(option, parse, words, truth, tmp_path):
    with pytest.raises(InputError, match=f"{option.split('=')[0]}: of the masked autoencoder, but --truth"):
        pretrain.run(parse(*words, option, "--truth", truth))
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


@pytest.mark.parametrize("option", ["--init=x.safetensors", "--map-weight=1"])
def test_what_is_of_anatomy_is_refused_without_true_values(option, parse, words, tmp_path):
    with pytest.raises(InputError, match=f"{option.split('=')[0]} is of a training on anatomy: it needs --truth"):
        pretrain.run(parse(*words, option))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--truth", "--init"])
def test_a_missing_file_of_anatomy_is_found_before_the_work(option, parse, words, truth, tmp_path):
    from med_duallora.errors import MedDualLoRAError

    given = {"--truth": truth} | {option: tmp_path / "nowhere"}
    with pytest.raises(MedDualLoRAError, match="nowhere does not exist"):
        pretrain.run(parse(*words, *(word for pair in given.items() for word in pair)))
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}
