import numpy as np
import pytest

from med_duallora.cohorts.phantom.parameters import (
    ACDC_MIXTURE,
    CLASS_ANATOMY,
    MNMS_MIXTURE,
    PATHOLOGIES,
    POOL_MIXTURE,
    VENDOR_APPEARANCE,
    VENDORS,
    class_anatomy,
)


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_severity_leads_from_healthy_to_the_class(pathology: str) -> None:
    healthy, ill = class_anatomy(pathology, 0.0), class_anatomy(pathology, 1.0)
    assert healthy.lv_edv == pytest.approx(CLASS_ANATOMY["NOR"].lv_edv)
    assert ill.rv_ef == pytest.approx(CLASS_ANATOMY[pathology].rv_ef)
    half = class_anatomy(pathology, 0.5)
    assert half.lv_edv[0] == pytest.approx(np.sqrt(healthy.lv_edv[0] * ill.lv_edv[0]))  # volumes multiply
    assert half.lv_ef[0] == pytest.approx((healthy.lv_ef[0] + ill.lv_ef[0]) / 2)
    assert half.akinesia == pytest.approx(ill.akinesia / 2)


def test_every_vendor_is_complete() -> None:
    assert set(VENDOR_APPEARANCE) == set(MNMS_MIXTURE) == set(VENDORS)
    for look in VENDOR_APPEARANCE.values():
        assert sum(look.quarter_turns) == pytest.approx(1)
        assert 0 <= look.apex_first <= 1


@pytest.mark.parametrize("mixture", [ACDC_MIXTURE, POOL_MIXTURE, *MNMS_MIXTURE.values()])
def test_mixtures_are_shares(mixture) -> None:
    assert 0 < mixture.normal < 1
    assert sum(mixture.disease.values()) == pytest.approx(1)
    assert set(mixture.disease) == set(PATHOLOGIES) - {"NOR"}


def test_the_healthy_share_shifts_between_vendors() -> None:
    shares = {vendor: mixture.normal for vendor, mixture in MNMS_MIXTURE.items()}
    assert shares == {"siemens": 0.23, "philips": 0.52, "ge": 0.27, "canon": 0.28}
