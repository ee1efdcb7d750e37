import pytest

from med_duallora.errors import ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.release import ReleaseFloors


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan"), "0.5"])
@pytest.mark.parametrize("name", ["min_sensitivity", "min_specificity", "min_balanced_accuracy"])
def test_a_floor_is_a_share(name: str, floor: object) -> None:
    with pytest.raises(ConfigError, match=rf"release\.{name} = "):
        ReleaseFloors(**{name: floor})


def test_what_asks_for_nothing_is_not_asked() -> None:
    assert ReleaseFloors().asked == {}
    assert ReleaseFloors(min_specificity=0.6).asked == {"specificity": 0.6}


def test_of_two_floors_the_higher_one_counts() -> None:
    assert ReleaseFloors(0.5, 0.6, 0.0).raised(ReleaseFloors(0.7, 0.1, 0.4)) == ReleaseFloors(0.7, 0.6, 0.4)


def test_a_site_sets_them_in_its_configuration() -> None:
    places = {"data_dir": "d", "state_dir": "s", "cache_dir": "c"}
    assert SiteConfig.from_dict(places).release == ReleaseFloors()
    assert SiteConfig.from_dict({**places, "release": {"min_specificity": 0.6}}).release.min_specificity == 0.6
