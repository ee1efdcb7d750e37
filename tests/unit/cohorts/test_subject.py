import re
from pathlib import Path

import pytest

import med_duallora
from med_duallora.cohorts.subject import (
    PATHOLOGIES,
    REASONS,
    VENDOR_NAMES,
    VENDORS,
    ImageSource,
    RawSubject,
    canonical_pathology,
    check_name,
    existing,
    vendor_slug,
)
from med_duallora.errors import SubjectRefused


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NOR", "NOR"),
        ("RV", "RV"),  # ACDC, M&Ms-2
        ("ARV", "RV"),  # M&Ms: the same disease
        ("DLV", "LV"),  # M&Ms-2's paper; its table says LV
        ("Other", "OTHER"),  # M&Ms
        (" hcm ", "HCM"),
        ("FALL", "FALL"),
    ],
)
def test_pathologies_have_one_name(text: str, name: str) -> None:
    assert canonical_pathology(text) == name


@pytest.mark.parametrize("text", ["", "nan", "N", "healthy?", "HCM/DCM"])
def test_unknown_pathologies_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused, match="unknown") as refused:
        canonical_pathology(text)
    assert refused.value.reason == "unknown-pathology"


def test_only_nor_is_healthy() -> None:
    image = ImageSource(Path("x"))
    labels = {name: RawSubject("s", "table", name, "ge", "c", image, image).label for name in set(PATHOLOGIES.values())}
    assert labels.pop("NOR") == 0
    assert set(labels.values()) == {1}


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("SIEMENS", "siemens"),
        ("Philips Medical Systems", "philips"),
        ("GE MEDICAL SYSTEMS", "ge"),
        (" GE  Healthcare", "ge"),
        ("Canon", "canon"),
    ],
)
def test_vendors_have_one_slug(text: str, slug: str) -> None:
    assert vendor_slug(text) == slug
    assert set(VENDOR_NAMES.values()) == set(VENDORS)


@pytest.mark.parametrize("text", ["", "Hitachi", "B", "Siemens or GE"])
def test_unknown_vendors_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused) as refused:
        vendor_slug(text)
    assert refused.value.reason == "unknown-vendor"


@pytest.mark.parametrize("text", ["", ".", "..", "../x", "a/b", "a b", "-x", ".hidden", "a" * 101, "ä"])
def test_names_that_cannot_be_folders_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused) as refused:
        check_name(text)
    assert refused.value.reason == "bad-metadata"


def test_sources_are_those_there_are_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "gt").write_text("")
    ed, es = ImageSource(tmp_path / "ed", 1), ImageSource(tmp_path / "es", 2)
    subject = RawSubject("s", "mnms", "NOR", "ge", "c", ed, es, None, existing(tmp_path / "gt", 2))
    assert [role for role, _ in subject.sources()] == ["ed", "es", "es_gt"]
    assert existing(tmp_path / "absent") is None


def test_every_reason_is_explained_and_used() -> None:
    package = Path(med_duallora.__file__).parent
    used: set[str] = set()
    for file in package.rglob("*.py"):
        used |= set(
            re.findall(
                r'(?:SubjectRefused\(|str\(item\.ed\.path\), |str\(raw\.ed\.path\), )\s*"([a-z-]+)"', file.read_text()
            )
        )
    assert used == set(REASONS)
