"""Whether a site can run a job: one answer, the same words everywhere, and none of the site's data in a log."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from med_duallora.errors import ConfigError, InputError, UnfitError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.fitness import check, job_problems, problems
from med_duallora.site.runtime import SiteRuntime

SOURCE = Path("/etc/site/med_duallora_site.json")
FREE = SitePolicy.for_one_machine()


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["ge"]


@pytest.fixture
def fit(config: SiteConfig, tiny_job: JobConfig) -> tuple[SiteConfig, JobConfig]:
    """A site, and a job that it can run."""
    return config, tiny_job


def relabelled(config: SiteConfig, folder: Path, label: str) -> SiteConfig:
    """Return the configuration with a copy of the cohort whose subjects are all of one class."""
    folder.mkdir()
    for place in config.data_dir.iterdir():
        if place.is_dir():
            (folder / place.name).symlink_to(place)
    header, *rows = (config.data_dir / "cohort.csv").read_text().splitlines()
    column = header.split(",").index("label")
    changed = [[*cells[:column], label, *cells[column + 1 :]] for cells in (row.split(",") for row in rows)]
    (folder / "cohort.csv").write_text("\n".join([header, *(",".join(cells) for cells in changed)]) + "\n")
    return replace(config, data_dir=folder)


def test_a_good_configuration_is_left_alone(config: SiteConfig, tiny_job: JobConfig) -> None:
    check(config, source=SOURCE)
    check(replace(config, device="auto"), tiny_job, source=SOURCE)
    assert not config.state_dir.exists(), "a check makes nothing"


def test_a_gpu_that_is_not_there_is_found(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = (
        "site configuration med_duallora_site.json in /etc/site: "
        "device = 'cuda', but this machine has no usable CUDA device: use cpu or auto"
    )
    with pytest.raises(UnfitError) as caught:
        check(replace(config, device="cuda"), source=SOURCE)
    assert str(caught.value) == expected


def test_a_gpu_that_is_there_is_taken(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check(replace(config, device="cuda:0"), source=SOURCE)


@pytest.mark.parametrize(("label", "count"), [("0", "6 normal (NOR) and 0"), ("1", "0 normal (NOR) and 6")])
def test_a_cohort_of_one_class_is_found(label: str, count: str, config: SiteConfig, tmp_path: Path) -> None:
    changed = relabelled(config, tmp_path / "one-class", label)
    (problem,) = problems(changed)
    start = f"data_dir = '{changed.data_dir}', but training needs both classes, and its train split has {count}"
    assert str(problem).startswith(start)
    assert problem.todo.startswith("prepare it again with ")


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (replace(FREE, min_train_subjects=7), "only from 7 in all on (policy.min_train_subjects)"),
        (replace(FREE, min_subjects=4), "only from 4 of each class on (policy.min_subjects)"),
        (SitePolicy(), "only from 5 of each class on (policy.min_subjects)"),
    ],
)
def test_a_site_with_too_few_training_subjects_takes_no_job(
    policy: SitePolicy, says: str, config: SiteConfig, tiny_job: JobConfig
) -> None:
    few = replace(config, policy=policy)
    (problem,) = problems(few)
    assert problems(few, tiny_job) == [problem], "whatever the job is"
    assert says in problem.what and "3 normal (NOR) and 3 diseased subjects" in problem.what
    assert problem.todo.startswith("prepare a cohort with more training subjects, or lower policy.min_")
    with pytest.raises(UnfitError) as caught:
        SiteRuntime("ge", tiny_job, few)
    assert caught.value.in_log == "data_dir names a cohort that cannot be trained on: med-duallora preflight says why"
    assert problems(replace(config, policy=replace(FREE, min_subjects=3, min_train_subjects=6))) == []


def test_everything_that_is_wrong_is_reported_at_once_and_once(
    config: SiteConfig, tmp_path: Path, tiny_job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bad = replace(relabelled(config, tmp_path / "one-class", "1"), device="cuda", state_dir=Path("state"))
    assert [problem.key for problem in problems(bad)] == ["state_dir", "device", "data_dir"]
    gone = replace(config, data_dir=tmp_path / "nowhere", backbone_checkpoint=tmp_path / "nowhere.safetensors")
    gone = replace(gone, policy=replace(FREE, max_rank=1))
    assert [item.key for item in problems(gone, tiny_job)] == ["data_dir", "backbone_checkpoint", "policy.max_rank"]
    assert all(problem.todo for problem in problems(gone, tiny_job))


@pytest.mark.parametrize(
    ("settings", "policy", "key", "says"),
    [
        ([], replace(FREE, max_rank=1), "policy.max_rank", "asks for rank 8: change the job, or policy.max_rank where"),
        (
            [],
            replace(FREE, contract_sha256=("a" * 64,)),
            "policy.contract_sha256",
            "pinned, but the job's egress contract is",
        ),
        (
            [],
            replace(FREE, backbone_sha256="a" * 64),
            "policy.backbone_sha256",
            "pinned, but the job's backbone checkpoint is",
        ),
        (
            [f"backbone_sha256={'a' * 64}"],
            FREE,
            "backbone_checkpoint",
            f"the job pins the checkpoint {'a' * 64}, but backbone_checkpoint of this site",
        ),
        (
            ["backbone=cinema-mini"],
            FREE,
            "backbone_checkpoint",
            "the job is about the checkpoint that this package",
        ),
    ],
)
def test_what_a_job_asks_of_the_site_is_compared(
    settings: list[str], policy: SitePolicy, key: str, says: str, fit: tuple[SiteConfig, JobConfig]
) -> None:
    job = fit[1].with_overrides(settings)
    config = replace(fit[0], policy=policy)
    assert problems(config) == [], "nothing of it stops every job"
    (problem,) = problems(config, job)
    assert problem.key == key and says in str(problem)
    assert job_problems(config, job) == [problem]
    with pytest.raises(UnfitError) as caught:
        SiteRuntime("ge", job, config)
    assert str(caught.value) == str(problem), "a site that starts the job says the same"


@pytest.mark.parametrize(
    ("settings", "limit", "says"),
    [
        ([], 4, "aggregation factors does not put the strongest components first: set rank_limit to 0, or have"),
        (["aggregation=alternate"], 4, "or have the job say aggregation=svd or geometric-median"),
        (
            ["method=fedsa-lora"],
            7,
            "method fedsa-lora does not send both factors of an adapter: set rank_limit to 0, or",
        ),
        (["method=fedavg-full"], 4, "method fedavg-full does not send both factors of an adapter: set rank_limit to 0"),
        (["method=ditto-lora", "aggregation=svd"], 4, "method ditto-lora pulls a second adapter towards the whole"),
    ],
)
def test_a_site_that_trains_a_part_needs_a_rule_of_products(
    settings: list[str], limit: int, says: str, fit: tuple[SiteConfig, JobConfig]
) -> None:
    config, job = replace(fit[0], rank_limit=limit), fit[1].with_overrides(settings)
    assert problems(config) == [], "nothing of it stops every job"
    (problem,) = problems(config, job)
    assert problem.key == "rank_limit" and says in str(problem)
    assert f"rank_limit = {limit}, below the job's rank of 8" in problem.what
    assert job_problems(config, job) == [problem]
    with pytest.raises(UnfitError) as caught:
        SiteRuntime("ge", job, config)
    assert str(caught.value) == str(problem)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ([], {"rank_limit": 8}),
        ([], {"rank_limit": 9}),
        ([], {"rank_limit": 4, "role": "predict"}),
        (["method=local-lora"], {"rank_limit": 4}),
        (["aggregation=svd"], {"rank_limit": 4}),
        (["aggregation=geometric-median"], {"rank_limit": 1}),
    ],
)
def test_a_limit_that_does_not_bind_or_fits_the_rule_stops_nothing(settings, change, fit) -> None:
    assert problems(replace(fit[0], **change), fit[1].with_overrides(settings)) == []


def test_a_job_that_no_site_could_run_is_not_the_sites_fault(config: SiteConfig, tiny_job: JobConfig) -> None:
    with pytest.raises(ConfigError, match=r"lora\.n_blocks = 9"):
        problems(config, tiny_job.with_overrides(["lora.n_blocks=9"]))


def without_volumes(config: SiteConfig, folder: Path) -> SiteConfig:
    folder.mkdir()
    (folder / "cohort.csv").write_bytes((config.data_dir / "cohort.csv").read_bytes())
    return replace(config, data_dir=folder)


def one_class(config: SiteConfig, folder: Path) -> SiteConfig:
    return relabelled(config, folder, "1")


@pytest.mark.parametrize(
    ("spoils", "whole"), [(without_volumes, "ge000"), (one_class, "0 normal (NOR) and 6 diseased")]
)
def test_a_log_tells_nothing_of_the_sites_subjects_and_the_terminal_all(
    spoils, whole: str, config: SiteConfig, tmp_path: Path
) -> None:
    spoilt = spoils(config, tmp_path / "spoilt")
    with pytest.raises(UnfitError) as caught:
        check(spoilt, source=tmp_path / "site.json")
    assert whole in str(caught.value)
    assert caught.value.in_log == (
        "site configuration site.json in <path>: data_dir names a cohort that cannot be trained on: med-duallora "
        "preflight says why"
    )


def test_an_error_of_unfitness_is_bad_input(config: SiteConfig) -> None:
    with pytest.raises(UnfitError) as caught:
        check(replace(config, data_dir=config.data_dir / "nowhere"))
    assert isinstance(caught.value, InputError) and caught.value.exit_code == 2
    logging.getLogger(__name__).info("%s", caught.value.in_log)  # the suite's own listener looks for names in it


def test_torch_is_not_imported_for_a_device_that_is_always_there() -> None:
    device = "import med_duallora.site.fitness as fitness; list(fitness._device('cpu'))"
    code = f"import sys\n{device}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
