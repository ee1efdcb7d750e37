"""Named sets of settings: the same keys in each, the defaults in one of them, and the page that explains them."""

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.settings.config import JobConfig
from med_duallora.settings.reading import parsed
from med_duallora.settings.recipes import RECIPES, with_recipe
from med_duallora.site_kit.job_check import strict_refusal
from tests.conftest import REPOSITORY

KEYS = set(parsed(RECIPES["default"].settings))


def test_the_default_recipe_is_what_a_job_has_without_one() -> None:
    assert JobConfig().with_overrides(with_recipe("default", ())) == JobConfig()
    assert with_recipe(None, ["train.n_rounds=3"]) == ["train.n_rounds=3"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_means_the_same_on_top_of_any_other(name: str) -> None:
    assert set(parsed(RECIPES[name].settings)) == KEYS
    alone = JobConfig().with_overrides(with_recipe(name, ()))
    for other in RECIPES:
        below = JobConfig().with_overrides(with_recipe(other, ()))
        assert below.with_overrides(with_recipe(name, ())) == alone


def test_a_setting_counts_on_top_of_a_recipe() -> None:
    job = JobConfig().with_overrides(with_recipe("paper", ["train.local_lr_factor=0.5"]))
    assert (job.lora.head_policy, job.train.local_lr_factor) == ("local", 0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_one_that_a_site_kit_takes_as_it_is(name: str) -> None:
    assert strict_refusal(JobConfig().with_overrides(with_recipe(name, ()))) == ""


def test_what_the_paper_describes_sends_nothing_of_the_head() -> None:
    job = JobConfig().with_overrides(with_recipe("paper", ()))
    assert not any("head" in name for name in EgressContract.for_job(job).tensors)


def test_the_page_has_a_row_of_every_recipe_and_no_other() -> None:
    lines = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    settings = {name: ", ".join(f"`{text}`" for text in recipe.settings) for name, recipe in RECIPES.items()}
    assert rows == [f"| `{name}` | {settings[name]} | {recipe.summary} |" for name, recipe in RECIPES.items()]
