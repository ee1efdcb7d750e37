from dataclasses import replace

import pytest

from med_duallora.errors import ConfigError
from med_duallora.study.arms import arms, chosen
from med_duallora.study.plan import Recipe, specs
from tests.unit.truths import truth_table


def test_every_method_of_the_package_can_be_compared():
    from med_duallora.adapter.methods import METHODS

    assert set(METHODS) <= set(arms())
    assert [arm.name for arm in chosen(None, truth=True)] == list(arms())
    assert [arm.name for arm in chosen(None)] == [name for name in arms() if name != "latent-ceiling"]
    with pytest.raises(ConfigError, match="latent-ceiling needs --truth"):
        chosen("latent-ceiling")
    assert [arm.name for arm in chosen("own-head, fedavg-lora")] == ["own-head", "fedavg-lora"]
    with pytest.raises(ConfigError, match="there is no 'fedavg'; there are med-duallora"):
        chosen("fedavg")
    with pytest.raises(ConfigError, match="names own-head twice"):
        chosen("own-head,own-head")


def test_a_recipe_is_a_name_and_settings():
    assert Recipe.read("high: train.lr=0.01  lora.n_blocks=1") == Recipe("high", ("train.lr=0.01", "lora.n_blocks=1"))
    assert Recipe.read("default:") == Recipe("default")
    assert "lora.head_policy=local" in Recipe.read("paper").settings, "those of the package are known by name"
    for text in ("train.lr=0.01", ": a=1", "a b: c=1", "../x: c=1"):
        with pytest.raises(ConfigError, match="is not 'name: KEY=VALUE"):
            Recipe.read(text)


def test_a_study_is_arms_by_recipes_by_cohorts_by_seeds_in_whole_seeds(cohort, job, tiny_checkpoint, tmp_path):
    other = replace(cohort, name="other")
    found = specs(
        chosen("med-duallora,own-head"),
        [Recipe("default"), Recipe("high", ("train.lr=0.01",))],
        [cohort, other],
        [3, 4],
        job=job,
        checkpoint=tiny_checkpoint,
        n_train=6,
        n_test=None,
        out=tmp_path,
    )
    assert len(found) == len({spec.path for spec in found}) == 16
    assert [spec.seed for spec in found] == [3] * 8 + [4] * 8
    assert {spec.job.train.lr for spec in found if spec.recipe == "high"} == {0.01}
    assert {spec.job.method for spec in found if spec.arm.name == "med-duallora"} == {"med-duallora"}


def test_no_peer_is_slowed_down(spec_of, job):
    """What stays learns slowly in our method alone; whoever published another one did not say so."""
    slow = job.with_overrides(["train.local_lr_factor=0.1", "train.lr=0.01"])
    assert spec_of("med-duallora", job=slow).job.train.local_lr_factor == 0.1
    for name in ("fedavg-lora", "fedsa-lora", "local-lora", "central-lora", "central-full"):
        assert spec_of(name, job=slow).job.train.local_lr_factor == 1, name
        assert spec_of(name, job=slow).job.train.lr == 0.01


def test_controls_take_the_first_seeds(cohort, job, tiny_checkpoint, tmp_path):
    more = {"job": job, "checkpoint": tiny_checkpoint, "n_train": 6, "n_test": None, "out": tmp_path}
    found = specs(chosen("own-head,new-site"), [Recipe("default")], [cohort], range(4), n_few=2, **more)
    assert [spec.seed for spec in found if spec.arm.name == "new-site"] == [0, 1]
    assert [spec.seed for spec in found if spec.arm.name == "own-head"] == [0, 1, 2, 3]


def test_whatever_changes_the_numbers_changes_the_key(spec_of, job, cohort, tmp_path):
    spec = spec_of("med-duallora")
    table = {**cohort.tables, "ge": "0" * 64}
    changed = [
        spec_of("med-duallora", seed=1),
        spec_of("med-duallora", job=job.with_overrides(["train.lr=0.01"])),
        spec_of("fedavg-lora"),
        spec_of("permuted-labels"),
        spec_of("random-weights"),
        spec_of("latent-ceiling", truth=truth_table(tmp_path / "truth.csv", [])),
        spec_of("latent-ceiling"),
        replace(spec, n_train=7),
        replace(spec, n_test=2),
        replace(spec, cohort=replace(cohort, tables=table)),
    ]
    assert len({spec.key, *(one.key for one in changed)}) == 1 + len(changed)
    assert replace(spec, out=tmp_path).key == spec.key, "where it is written does not matter"


def test_a_setting_that_is_unknown_is_refused_before_anything_runs(spec_of, job):
    with pytest.raises(ConfigError, match="nothing"):
        spec_of("own-head", job=job.with_overrides(["train.nothing=1"]))
