from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.errors import CohortError, ConfigError, TrainingAborted
from med_duallora.settings.config import JobConfig
from med_duallora.site import features as features_module
from med_duallora.site import volumes as volumes_module
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.features import FeatureSource
from med_duallora.support.devices import autocast
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import TINY, shake, tiny_model

JOB = JobConfig(backbone="cinema-tiny")
SECRET = bytes(32)


def equal(one, other) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("tokens", "fusion_term"))


def files_of(cache: FeatureCache) -> list[Path]:
    return sorted(path for path in cache.directory.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", 2**20, SECRET)


@pytest.fixture(scope="module")
def subjects(tiny_cohorts):
    return PreparedCohort.read(tiny_cohorts["ge"]).split("train")


def source_of(cache: FeatureCache | None, job: JobConfig = JOB, backbone: str = "0" * 64, **model) -> FeatureSource:
    return FeatureSource(tiny_model(job.lora, **model), job, backbone, cache)


def test_cached_features_are_the_trunks(cache, subjects):
    source = source_of(cache)
    direct = source_of(None)
    views = [0, 1, 2]
    for _ in range(2):
        assert equal(source.batch(subjects[:3], views), direct.batch(subjects[:3], views))
    assert (cache.n_hits, cache.n_misses) == (3, 3)
    one = source.batch(subjects[:1], [0])
    assert one.tokens.shape == (1, 1 + TINY.n_tokens, TINY.embed_dim)
    assert one.fusion_term.shape == (1, TINY.n_tokens, TINY.embed_dim)
    assert one.tokens.dtype == torch.float32


def test_features_do_not_depend_on_the_rest_of_the_batch_or_on_training(cache, subjects):
    source = source_of(None)
    together = source.batch(subjects[:4], [0, 1, 0, 1])
    shake(source.model)
    source.model.train()
    for index in range(4):
        alone = source.batch([subjects[index]], [index % 2])
        assert torch.equal(alone.tokens[0], together.tokens[index])
        assert torch.equal(alone.fusion_term[0], together.fusion_term[index])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_features_do_not_depend_on_who_asks_first(cache, subjects, precision):
    source = source_of(cache)
    expected = source_of(None).batch(subjects[:1], [0])
    with autocast(torch.device("cpu"), precision):
        found = source.batch(subjects[:1], [0])
    assert equal(found, expected), "an entry in half precision would serve everybody after"
    assert equal(source.batch(subjects[:1], [0]), expected)


def test_views_repeat_and_differ(subjects):
    one, again = source_of(None), source_of(None)
    first = {view: one.batch(subjects[:1], [view]) for view in range(4)}
    for view in reversed(range(4)):
        assert equal(again.batch(subjects[:1], [view]), first[view]), "in any order, in any process"
    always = JOB.with_overrides(["augment.probability=1"])
    tokens = [source_of(None, always).batch(subjects[:1], [view]).tokens for view in range(4)]
    assert all(not torch.equal(a, b) for i, a in enumerate(tokens) for b in tokens[:i])


def test_view_0_is_the_prepared_image(subjects):
    from med_duallora.backbone.inputs import to_input

    source = source_of(None)
    x = torch.from_numpy(to_input(load_volume(subjects[0]), TINY))[None]
    assert equal(source.batch(subjects[:1], [0]), source.model.trunk(x))


SAME, OTHER = 1, 2
"""Entries after a first and a changed request."""


@pytest.mark.parametrize(
    ("change", "n_entries", "reason"),
    [
        ({"backbone": "1" * 64, "view": 0}, OTHER, "another backbone"),
        ({"job": ["lora.n_blocks=1"], "view": 0}, OTHER, "another cut"),
        ({"job": ["train.feature_dtype=float16"], "view": 0}, OTHER, "another type"),
        ({"job": ["train.seed=1"], "view": 1}, OTHER, "other random changes"),
        ({"job": ["train.seed=1"], "view": 0}, SAME, "view 0 has no random change"),
        ({"job": ["augment.scale=0.3"], "view": 1}, OTHER, "other random changes"),
        ({"job": ["augment.scale=0.3"], "view": 0}, SAME, "view 0 has no random change"),
        ({"job": ["lora.rank_global=2", "train.lr=0.1", "experiment=b"], "view": 1}, SAME, "nothing of the trunk"),
        ({"subject": "renamed", "view": 1}, OTHER, "the subject's name picks its random stream"),
        ({"subject": "renamed", "view": 0}, SAME, "the image decides, not its name"),
        ({"view": 1}, SAME, "nothing changed"),
    ],
)
def test_the_address_changes_with_what_decides_the_content(cache, subjects, change, n_entries, reason):
    view = change["view"]
    source_of(cache).batch(subjects[:1], [view])
    subject = replace(subjects[0], subject=change.get("subject", subjects[0].subject))
    changed = source_of(cache, JOB.with_overrides(change.get("job", [])), change.get("backbone", "0" * 64))
    changed.batch([subject], [view])
    assert len(files_of(cache)) == n_entries, reason


def test_the_address_changes_with_the_preparation_of_the_input(cache, subjects, monkeypatch):
    source_of(cache).batch(subjects[:1], [0])
    monkeypatch.setattr(features_module, "INPUTS_VERSION", 10**6)
    source_of(cache).batch(subjects[:1], [0])
    assert len(files_of(cache)) == OTHER


def test_the_address_changes_with_the_volume_and_the_view(tmp_path):
    cohort = write_tiny_cohort(tmp_path / "cohort", "ge", 0, n_subjects=2)
    one, two = PreparedCohort.read(cohort).subjects
    cache = FeatureCache(tmp_path / "cache", 2**24, SECRET)
    source_of(cache).batch([one, two, one, one], [0, 0, 1, 2])
    assert len(files_of(cache)) == 4
    for phase in ("ed", "es"):  # the second subject's images under the first one's name
        getattr(one, f"{phase}_path").write_bytes(getattr(two, f"{phase}_path").read_bytes())
    source_of(cache).batch([one], [0])
    assert len(files_of(cache)) == 4, "it meets the entry of those very images"
    source_of(cache).batch([one], [1])
    assert len(files_of(cache)) == 5, "and not the one of the images that were there before"


def test_a_damaged_entry_is_computed_again(cache, subjects):
    source = source_of(cache)
    expected = source.batch(subjects[:1], [0])
    (path,) = files_of(cache)
    path.write_bytes(path.read_bytes()[:100])
    assert equal(source_of(cache).batch(subjects[:1], [0]), expected)
    assert set(load_file(path)) == {"tokens", "fusion_term"}


def test_half_precision_storage_halves_the_space_and_cached_equals_uncached(tmp_path, subjects):
    job = JOB.with_overrides(["train.feature_dtype=float16"])
    full, half = FeatureCache(tmp_path / "full", 2**24, SECRET), FeatureCache(tmp_path / "half", 2**24, SECRET)
    exact = source_of(full).batch(subjects[:1], [0])
    source = source_of(half, job)
    found = [
        source.batch(subjects[:1], [0]),
        source.batch(subjects[:1], [0]),
        source_of(None, job).batch(subjects[:1], [0]),
    ]
    assert half.n_hits == 1
    assert equal(found[0], found[1])
    assert equal(found[0], found[2]), "rounding does not depend on the cache"
    assert found[0].tokens.dtype == torch.float32
    assert not torch.equal(found[0].tokens, exact.tokens)
    assert torch.allclose(found[0].tokens, exact.tokens, rtol=1e-3, atol=1e-4)
    sizes = [files_of(each)[0].stat().st_size for each in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]


def test_features_that_half_precision_cannot_hold_are_refused(cache, subjects):
    source = source_of(cache, JOB.with_overrides(["train.feature_dtype=float16"]))
    source.model.classifier.encoder.cls_token.data.fill_(1e6)
    with pytest.raises(ConfigError, match=r"not finite in float16.*set train\.feature_dtype to float32"):
        source.batch(subjects[:1], [0])
    assert files_of(cache) == []


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_computing_features_stops_between_two_subjects(cache, subjects, allowed):
    asked = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > allowed

    with pytest.raises(TrainingAborted, match="stopped while trunk features were computed"):
        source_of(cache).batch(subjects[:4], [0] * 4, should_stop)
    assert len(asked) == allowed + 1
    assert len(files_of(cache)) == allowed, "what was computed is kept"


def test_a_source_reads_each_volume_once_whatever_views_are_asked_for(cache, subjects, monkeypatch):
    reads = []
    monkeypatch.setattr(volumes_module, "load_volume", lambda subject: reads.append(1) or load_volume(subject))
    source = source_of(cache)
    source.batch(subjects[:2], [0, 0])
    assert len(reads) == 2
    for view in range(3):
        source.batch(subjects[:2], [view, view])
    assert len(reads) == 2, "neither a hit nor another view needs the files again"
    FeatureSource(source.model, source.job, "1" * 64, cache, source.volumes).batch(subjects[:2], [0, 0])
    assert len(reads) == 2, "nor does a source that shares the volumes"


def test_a_volume_that_changes_while_the_job_runs_is_never_stored_under_its_old_address(cache, tmp_path):
    cohort = PreparedCohort.read(write_tiny_cohort(tmp_path / "cohort", "ge", 0))
    first, second = cohort.split("train")[:2]
    source = source_of(cache)
    source.batch([first], [0])
    for before, after in zip((first.ed_path, first.es_path), (second.ed_path, second.es_path), strict=True):
        before.write_bytes(after.read_bytes())
    stored = files_of(cache)
    with pytest.raises(CohortError, match="changed while the job runs; start the job again"):
        source.batch([first], [1])
    assert files_of(cache) == stored
    assert equal(source_of(cache).batch([first], [0]), source_of(None).batch([first], [0])), "a new job sees it"
