import pytest

from med_duallora.cohorts.phantom.parameters import ACDC_MIXTURE, MNMS_MIXTURE, VENDORS, Mixture
from med_duallora.cohorts.phantom.plan import PRESETS, class_counts, plan_cohort


@pytest.mark.parametrize(
    ("n", "expected", "reason"),
    [
        (14, {"NOR": 3, "DCM": 3, "HCM": 3, "MINF": 3, "RV": 2}, "largest remainders, ties in order"),
        (5, {"NOR": 1, "DCM": 1, "HCM": 1, "MINF": 1, "RV": 1}, "one each"),
        (0, {"NOR": 0, "DCM": 0, "HCM": 0, "MINF": 0, "RV": 0}, "none"),
    ],
)
def test_counts_add_up(n: int, expected: dict[str, int], reason: str) -> None:
    assert class_counts(ACDC_MIXTURE, n) == expected, reason


@pytest.mark.parametrize("preset", PRESETS)
def test_names_are_unique_and_plans_repeat(preset: str) -> None:
    plan = plan_cohort(preset, 3, PRESETS[preset])
    assert len({entry.name for entry in plan}) == len(plan)
    assert plan == plan_cohort(preset, 3, PRESETS[preset])
    assert plan != plan_cohort(preset, 4, PRESETS[preset])


@pytest.mark.parametrize("preset", ["demo", "study"])
def test_every_vendor_has_both_classes_for_every_split(preset: str) -> None:
    plan = plan_cohort(preset, 0, PRESETS[preset])
    for vendor in VENDORS:
        classes = [entry.identity.pathology for entry in plan if entry.identity.vendor == vendor]
        assert len(classes) == PRESETS[preset]
        assert min(classes.count("NOR"), len(classes) - classes.count("NOR")) >= 5  # 60/20/20 leaves one in each


def test_the_healthy_share_is_the_vendor_s() -> None:
    plan = plan_cohort("study", 0, 120)
    for vendor, mixture in MNMS_MIXTURE.items():
        classes = [e.identity.pathology for e in plan if e.identity.vendor == vendor and e.layout == "mnms"]
        assert classes.count("NOR") / len(classes) == pytest.approx(mixture.normal, abs=0.01)


def test_siemens_is_half_acdc_and_the_others_are_not() -> None:
    plan = plan_cohort("study", 0, 120)
    acdc = [entry for entry in plan if entry.layout == "acdc"]
    assert len(acdc) == 60
    assert {entry.identity.vendor for entry in acdc} == {"siemens"}
    assert not any(entry.identity.borderline for entry in acdc)
    assert all(entry.identity.borderline for entry in plan if entry.layout == "mnms")


@pytest.mark.parametrize("vendor", ["ge", "canon"])
def test_some_vendors_are_in_no_training_part(vendor: str) -> None:
    places = {entry.place for entry in plan_cohort("study", 0, 120) if entry.identity.vendor == vendor}
    assert places == {"OpenDataset/Validation", "OpenDataset/Testing"}


def test_the_pool_is_siemens_alone_and_shares_no_subject() -> None:
    pool = plan_cohort("pretrain", 0, 40)
    assert {entry.identity.vendor for entry in pool} == {"siemens"}
    assert {entry.place for entry in pool} == {"database/training"}
    streams = {(e.identity.pool, e.identity.index) for preset in ("demo", "study") for e in plan_cohort(preset, 0, 40)}
    assert not streams & {(entry.identity.pool, entry.identity.index) for entry in pool}


def test_no_two_subjects_share_their_streams() -> None:
    plan = plan_cohort("study", 0, 120)
    assert len({(entry.identity.pool, entry.identity.index) for entry in plan}) == len(plan)


def test_a_mixture_without_health_is_possible() -> None:
    assert class_counts(Mixture(0.0, {"DCM": 1.0}), 3) == {"NOR": 0, "DCM": 3}
