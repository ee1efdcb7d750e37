from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from nvflare.apis.utils.format_check import name_check

from med_duallora.cohorts.site_names import Sites, check_site_name, in_order, site_slug, sites_of
from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.errors import CohortError, ConfigError

IMAGE = ImageSource(Path("x"))


def subject(name: str, vendor: str = "ge", centre: str = "c", pathology: str = "NOR") -> RawSubject:
    return RawSubject(name, "table", pathology, vendor, centre, IMAGE, IMAGE)


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        ("united-imaging", "united-imaging"),
        ("mnms-1", "mnms-1"),
        ("Oslo, Norway", "oslo-norway"),
        ("  St. Olavs   hospital ", "st-olavs-hospital"),
        ("Universitätsklinikum Gießen", "universitatsklinikum-giessen"),
        ("Tromsø", "tromso"),
        ("3", "centre-3"),
        ("server", "centre-server"),
        ("../etc", "etc"),
        ("", "unknown-centre"),
        ("---", "centre-cb3f91"),
        ("北京", "centre-68c77e"),
    ],
)
def test_a_site_s_name_is_written_from_its_value(value: str, slug: str) -> None:
    assert site_slug(value, "centre") == slug


def test_names_in_another_script_stay_apart() -> None:
    names = {site_slug(value, "centre") for value in ("北京 1", "上海 1", "北京 2", "Клиника 1")}
    assert len(names) == 4
    assert site_slug("Клиника", "centre") == site_slug("клиника", "centre")


@pytest.mark.parametrize("value", ["a", "x" * 300, "北京" * 100, "_", "-", "1", "all", "\n", "ß", "a/b\\c", "é"])
def test_every_value_gives_a_name_that_flare_takes(value: str) -> None:
    (name,) = sites_of([subject("s", centre=value)], Sites(("centre",)), 0).values()
    check_site_name(name)
    failed, why = name_check(name, "client")
    assert not failed, why
    assert len(name) <= 40


@pytest.mark.parametrize("name", ["", "-c", "my hospital", "oslo.no", "a/b", "ä", "x" * 65, "server", "All", "a,b"])
def test_other_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        check_site_name(name)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("vendor",), {"a": "ge", "b": "ge", "c": "siemens"}),
        (("centre",), {"a": "oslo", "b": "bergen", "c": "oslo"}),
        (("vendor", "centre"), {"a": "ge-oslo", "b": "ge-bergen", "c": "siemens-oslo"}),
        (("centre", "dataset"), {"a": "oslo-table", "b": "bergen-table", "c": "oslo-table"}),
    ],
)
def test_every_value_or_combination_is_a_site(columns: tuple[str, ...], expected: dict[str, str]) -> None:
    subjects = [subject("a", "ge", "Oslo"), subject("b", "ge", "Bergen"), subject("c", "siemens", "OSLO ")]
    assert sites_of(subjects, Sites(columns), 0) == expected


# Perhaps one hospital, perhaps two: only its owner knows.
@pytest.mark.parametrize("centres", [("St. Olav", "St Olav"), ("a b", "a-b"), ("Zürich", "Zurich")])
def test_two_values_never_share_a_name_silently(centres: Sequence[str]) -> None:
    subjects = [subject(str(number), centre=centre) for number, centre in enumerate(centres)]
    with pytest.raises(CohortError, match="would both be called") as error:
        sites_of(subjects, Sites(("centre",)), 0)
    assert all(repr(centre) in str(error.value) for centre in centres)


def test_long_names_that_begin_alike_stay_apart() -> None:
    subjects = [subject(letter, centre="x" * 50 + letter) for letter in "ab"]
    assert len(set(sites_of(subjects, Sites(("centre",)), 0).values())) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": ("center",)},
        {"columns": ("vendor", "vendor")},
        {"columns": ()},
        {"columns": ("",)},
        {"n_simulated": 1},
        {"n_simulated": 101},
    ],
)
def test_wrong_sites_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Sites(**wrong)


def test_simulated_sites_are_alike_and_drawn_by_the_seed() -> None:
    pathologies = ["NOR"] * 10 + ["DCM"] * 9 + ["HCM"] * 7
    subjects = [subject(f"s{number:02d}", pathology=name) for number, name in enumerate(pathologies)]
    dealt = sites_of(subjects, Sites((), n_simulated=4), 0)
    assert set(dealt.values()) == {"site-1", "site-2", "site-3", "site-4"}
    assert sorted(Counter(dealt.values()).values()) == [6, 6, 7, 7]
    for name in set(pathologies):
        counts = Counter(dealt[item.subject] for item in subjects if item.pathology == name)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert sites_of(subjects[::-1], Sites((), n_simulated=4), 0) == dealt, "the order of the sources does not matter"
    assert sites_of(subjects, Sites((), n_simulated=4), 1) != dealt
    with pytest.raises(CohortError, match="3 subjects cannot be dealt out to 4"):
        sites_of(subjects[:3], Sites((), n_simulated=4), 0)


def test_simulated_sites_of_each_vendor_are_alike_and_hold_no_other() -> None:
    subjects = [
        subject(f"{vendor}{number:02d}", vendor=vendor, pathology=name)
        for vendor in ("siemens", "ge")
        for number, name in enumerate(["NOR"] * 5 + ["DCM"] * 8)
    ]
    dealt = sites_of(subjects, Sites(("vendor",), 2), 0)
    assert set(dealt.values()) == {"siemens-1", "siemens-2", "ge-1", "ge-2"}
    assert all(site.startswith(name[:-2]) for name, site in dealt.items())
    for site in set(dealt.values()):
        here = [item for item in subjects if dealt[item.subject] == site]
        assert sum(item.pathology == "DCM" for item in here) == 4
        assert sum(item.pathology == "NOR" for item in here) in (2, 3)
    with pytest.raises(CohortError, match="1 subjects cannot be dealt out to 2 simulated sites, ge-1 to ge-2"):
        sites_of(subjects[:14], Sites(("vendor",), 2), 0)


def test_tables_name_vendors_first_and_count_numbers() -> None:
    names = ["site-10", "site-2", "canon", "oslo", "siemens", "oslo"]
    assert in_order(names) == ["siemens", "canon", "oslo", "site-2", "site-10"]
