import re
from pathlib import Path

import pytest

from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.cohorts.vocabulary import (
    ANY_DISEASE,
    COMPANY_WORDS,
    NORMAL,
    PATHOLOGIES,
    PATHOLOGY_WORDS,
    STANDARD,
    VENDOR_WORDS,
    VENDORS,
    Vocabulary,
    canonical_pathology,
    pathology_key,
    vendor_key,
    vendor_slug,
)
from med_duallora.errors import SubjectRefused
from tests.conftest import REPOSITORY


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
        ("Normal", "NOR"),
        ("healthy", "NOR"),
        ("Control", "NOR"),
        ("Healthy Control", "NOR"),
        ("healthy_volunteer", "NOR"),
        ("Dilated Cardiomyopathy", "DCM"),
        ("dilated  cardiomyopathy", "DCM"),
        ("HYPERTROPHIC CARDIOMYOPATHY", "HCM"),
        ("Myocardial Infarction", "MINF"),
        ("heart failure with infarct", "MINF"),  # as the Sunnybrook data say
        ("Heart failure with infarction", "MINF"),
        ("HF-I", "MINF"),
        ("HF-NI", "OTHER"),
        ("Athlete’s heart", "AHS"),
        ("ischaemic heart disease", "IHD"),
        ("ischemic heart disease", "IHD"),
        ("Left ventricular non-compaction", "LVNC"),
        ("tetralogy of Fallot", "FALL"),
        ("disease", "OTHER"),
    ],
)
def test_pathologies_have_one_name(text: str, name: str) -> None:
    assert canonical_pathology(text) == name


@pytest.mark.parametrize("text", ["", "nan", "N", "healthy?", "HCM/DCM", "not healthy", "unknown", "NOR, HCM"])
def test_unknown_pathologies_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused, match=r"unknown; known are NOR, DCM.*--label-map") as refused:
        canonical_pathology(text)
    assert refused.value.reason == "unknown-pathology"


def test_a_number_is_sent_to_the_column_for_numbers() -> None:
    with pytest.raises(SubjectRefused, match="column 'label'"):
        canonical_pathology("1")


def test_only_nor_is_healthy() -> None:
    image = ImageSource(Path("x"))
    labels = {name: RawSubject("s", "table", name, "ge", "c", image, image).label for name in PATHOLOGIES}
    assert labels.pop(NORMAL) == 0
    assert set(labels.values()) == {1}
    assert ANY_DISEASE in labels


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("SIEMENS", "siemens"),
        ("Siemens Healthcare GmbH", "siemens"),
        ("Siemens Healthineers AG", "siemens"),
        ("Philips", "philips"),
        ("Philips Medical Systems", "philips"),
        ("Philips Healthcare", "philips"),
        ("Philips Medical Systems Nederland B.V.", "philips"),
        ("GE MEDICAL SYSTEMS", "ge"),
        (" GE  Healthcare", "ge"),
        ("General Electric Company", "ge"),
        ("Canon", "canon"),
        ("CANON_MEC", "canon"),
        ("Canon Medical Systems Corporation", "canon"),
        ("Canon Inc", "canon"),
        ("TOSHIBA_MEC", "canon"),
        ("TOSHIBA_MEC_US", "canon"),
        ("Toshiba", "canon"),
        ("UIH", "united-imaging"),
        ("United Imaging Healthcare", "united-imaging"),
        ("Shanghai United Imaging Healthcare Co., Ltd.", "united-imaging"),
        ("united-imaging", "united-imaging"),
        ("Neusoft", "neusoft"),
        ("Neusoft (Medical Systems)", "neusoft"),
        ("Other", "other"),
    ],
)
def test_vendors_have_one_slug(text: str, slug: str) -> None:
    assert vendor_slug(text) == slug


@pytest.mark.parametrize(
    "text", ["", "Hitachi", "B", "Siemens or GE", "Siemens/GE", "Siemens?", "Medical Systems", "-"]
)
def test_unknown_vendors_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused, match=r"known are siemens, .*write 'other'.*--label-map") as refused:
        vendor_slug(text)
    assert refused.value.reason == "unknown-vendor"


def test_no_word_has_two_meanings_or_a_form_that_is_never_compared() -> None:
    for words, names, key in (
        (PATHOLOGY_WORDS, tuple(PATHOLOGIES), pathology_key),
        (VENDOR_WORDS, VENDORS, vendor_key),
    ):
        assert tuple(words) == names
        every = [word for group in words.values() for word in group]
        assert len(every) == len(set(every))
        assert [key(word) for word in every] == every
    assert not {name.casefold() for name in PATHOLOGIES} & {
        word for group in PATHOLOGY_WORDS.values() for word in group
    }
    assert all(STANDARD.pathology(name) == name for name in PATHOLOGIES)
    assert all(STANDARD.vendor(slug) == slug for slug in VENDORS)


def test_the_page_lists_every_word_and_no_other() -> None:
    page = (REPOSITORY / "docs/vocabulary.md").read_text(encoding="utf-8")
    rows = {match[1]: match[2].split(" | ") for match in re.finditer(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE)}
    for name, meaning in PATHOLOGIES.items():
        assert rows[name] == [meaning, ", ".join(PATHOLOGY_WORDS[name])]
    for slug in VENDORS:
        assert rows[slug] == [", ".join(VENDOR_WORDS[slug])]
    assert set(rows) == {*PATHOLOGIES, *VENDORS, "kind", "text", "name", "label"}
    ignored = re.search(r"do not count in a vendor's name: ([\w,\s]+)\.", page)
    assert ignored is not None
    assert ignored[1].replace("\n", " ").split(", ") == sorted(COMPANY_WORDS)


def test_added_words_are_told_from_the_standard_ones() -> None:
    assert STANDARD.added() == {}
    more = Vocabulary({**STANDARD.pathologies, "hfpef": "HFPEF"}, STANDARD.vendors)
    assert more.added() == {"pathology": {"hfpef": "HFPEF"}}
