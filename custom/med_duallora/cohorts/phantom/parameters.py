"""The tables behind the phantoms: anatomy by class, appearance by vendor, class mixture by vendor.

Volumes are in mL, lengths in mm, ejection fractions (EF) in percent. Class tables follow the ground truth of
ACDC (20 subjects per class); vendor tables are estimates of what the scanners' cine images look like.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

PATHOLOGIES = ("NOR", "DCM", "HCM", "MINF", "RV")
VENDORS = ("siemens", "philips", "ge", "canon")


@dataclass(frozen=True)
class ClassAnatomy:
    """What a class's hearts are like; pairs are (mean, sd).

    Args:
        lv_edv: left ventricular volume at ED in mL.
        lv_edv_log_sd: sd of its logarithm.
        lv_ef: left ventricular ejection fraction in percent.
        rv_edv: right ventricular volume at ED in mL.
        rv_ef: right ventricular ejection fraction in percent.
        myocardium: left ventricular myocardium at ED in mL (times 1.05 is its mass in g).
        myocardium_ratio: its volume at ES divided by that at ED.
        asymmetry: how much thicker than the mean the septal wall is, as a fraction of the mean.
        septal_flattening: how far the septum is pushed into the left ventricle at ES, as a fraction of its radius.
        long_axis: factor on the long-axis shortening that belongs to the ejection fraction.
        akinesia: share of contraction that is lost in one coronary territory.
        thinning: share of wall thickness that is lost in that territory.
        coupling: correlation of the two ventricles' volumes.
    """

    lv_edv: tuple[float, float]
    lv_edv_log_sd: float
    lv_ef: tuple[float, float]
    rv_edv: tuple[float, float]
    rv_ef: tuple[float, float]
    myocardium: tuple[float, float]
    myocardium_ratio: tuple[float, float]
    asymmetry: tuple[float, float] = (0.0, 0.08)
    septal_flattening: tuple[float, float] = (0.03, 0.02)
    long_axis: float = 1.0
    akinesia: float = 0.0
    thinning: float = 0.0
    coupling: float = 0.85


CLASS_ANATOMY = {
    "NOR": ClassAnatomy(
        lv_edv=(130, 26),
        lv_edv_log_sd=0.22,
        lv_ef=(60, 5),
        rv_edv=(153, 37),
        rv_ef=(55, 8),
        myocardium=(98, 25),
        myocardium_ratio=(1.17, 0.08),
    ),
    "DCM": ClassAnatomy(
        lv_edv=(285, 48),
        lv_edv_log_sd=0.18,
        lv_ef=(18, 7),
        rv_edv=(178, 67),
        rv_ef=(32, 18),
        myocardium=(162, 31),
        myocardium_ratio=(1.08, 0.06),
        asymmetry=(0.02, 0.08),
        coupling=0.4,
    ),
    "HCM": ClassAnatomy(
        lv_edv=(129, 35),
        lv_edv_log_sd=0.32,
        lv_ef=(67, 9),
        rv_edv=(118, 34),
        rv_ef=(60, 11),
        myocardium=(169, 53),
        myocardium_ratio=(1.18, 0.08),
        asymmetry=(0.42, 0.15),
        long_axis=0.8,
    ),
    "MINF": ClassAnatomy(
        lv_edv=(172, 43),
        lv_edv_log_sd=0.26,
        lv_ef=(31, 8),
        rv_edv=(119, 36),
        rv_ef=(56, 11),
        myocardium=(117, 18),
        myocardium_ratio=(1.14, 0.05),
        akinesia=0.8,
        thinning=0.3,
    ),
    "RV": ClassAnatomy(
        lv_edv=(107, 38),
        lv_edv_log_sd=0.39,
        lv_ef=(55, 6),
        rv_edv=(196, 49),
        rv_ef=(31, 15),
        myocardium=(74, 24),
        myocardium_ratio=(1.15, 0.08),
        septal_flattening=(0.2, 0.07),
        coupling=0.4,
    ),
}

# correlations inside a class (``ClassAnatomy.coupling`` is that of the two ventricles' volumes)
LV_WITH_MYOCARDIUM = 0.61
LV_WITH_LV_EF = -0.17
LV_EF_WITH_RV_EF = 0.45
# a right ventricle larger than the left one suggests pumps the same blood with a lower EF
RV_EXCESS_WITH_RV_EF = -0.5

# share of the way from NOR to the class's table row; ACDC leaves borderline cases out, other cohorts have them
SEVERITY_MILD = (0.9, 0.2)
SEVERITY_RANGE = (0.2, 1.0)

# Who is called normal, or diseased where borderline cases are left out: the lowest and highest value of
# (lv_ef, rv_ef, rv_edv / lv_edv, myocardium / lv_edv). Draws outside are drawn anew, CANDIDATES times at most.
ANY = (-np.inf, np.inf)
CRITERIA = {
    "NOR": ((52, 75), (45, 75), ANY, (0.5, 1.05)),
    "DCM": ((0, 40), ANY, ANY, ANY),
    "HCM": ((52, 100), ANY, ANY, (0.95, np.inf)),
    "MINF": ((0, 42), ANY, ANY, ANY),
    "RV": (ANY, (0, 47), (1.35, np.inf), ANY),
}
CANDIDATES = 8


def class_anatomy(pathology: str, severity: float) -> ClassAnatomy:
    """Return the table row ``severity`` of the way from NOR to ``pathology`` (volumes along their logarithm)."""
    normal, disease = CLASS_ANATOMY["NOR"], CLASS_ANATOMY[pathology]
    volumes = ("lv_edv", "rv_edv", "myocardium")
    values: dict[str, Any] = {}
    for item in fields(ClassAnatomy):
        low, high = np.asarray(getattr(normal, item.name)), np.asarray(getattr(disease, item.name))
        if item.name in volumes:
            low, high = np.log(low), np.log(high)
        mixed = low + severity * (high - low)
        mixed = np.exp(mixed) if item.name in volumes else mixed
        values[item.name] = tuple(mixed.tolist()) if mixed.ndim else float(mixed)
    return ClassAnatomy(**values)


@dataclass(frozen=True)
class VendorAppearance:
    """What a vendor's images look like; pairs are (mean, sd) unless said otherwise.

    Signals are relative to blood. ``slice_spacings`` and ``scanners`` are drawn from with equal chance.

    Args:
        spacing: in-plane spacing in mm.
        slice_spacings: distance of slice centres in mm.
        myocardium: signal.
        fat: signal.
        lung: signal.
        coil: strength of the coil's fall-off: 0 is flat, 1 loses about 63 % across the field of view.
        snr: blood signal divided by the noise's sd in one channel.
        blur_mm: full width at half maximum of the point spread function in mm.
        ink_probability: chance of dark lines at fat-water borders.
        banding_probability: chance of dark bands across the image.
        field_of_view: mm along the longer side.
        quarter_turns: chances of 0, 1, 2, 3 quarter turns in plane.
        apex_first: chance that slices are stored from apex to base.
        scanners: offsets of each scanner model, in sd of the values above.
        blood_level: stored grey value of blood: (median, sd of its logarithm).
    """

    spacing: tuple[float, float]
    slice_spacings: tuple[float, ...]
    myocardium: tuple[float, float]
    fat: tuple[float, float]
    lung: tuple[float, float]
    coil: tuple[float, float]
    snr: tuple[float, float]
    blur_mm: float
    ink_probability: float
    banding_probability: float
    field_of_view: tuple[float, float]
    quarter_turns: tuple[float, float, float, float]
    apex_first: float
    scanners: tuple[float, ...]
    blood_level: tuple[float, float]


VENDOR_APPEARANCE = {
    "siemens": VendorAppearance(
        spacing=(1.4, 0.15),
        slice_spacings=(8.0, 9.0, 10.0),
        myocardium=(0.24, 0.06),
        fat=(0.9, 0.2),
        lung=(0.05, 0.03),
        coil=(1.1, 0.25),
        snr=(45, 12),
        blur_mm=2.4,
        ink_probability=0.2,
        banding_probability=0.1,
        field_of_view=(262, 14),
        quarter_turns=(0.8, 0.1, 0.05, 0.05),
        apex_first=0.25,
        scanners=(-0.5, 0.0, 0.5),
        blood_level=(260, 0.35),
    ),
    "philips": VendorAppearance(
        spacing=(1.2, 0.12),
        slice_spacings=(10.0,),
        myocardium=(0.30, 0.06),
        fat=(1.2, 0.2),
        lung=(0.07, 0.03),
        coil=(0.7, 0.2),
        snr=(25, 7),
        blur_mm=1.7,
        ink_probability=0.5,
        banding_probability=0.2,
        field_of_view=(256, 16),
        quarter_turns=(0.85, 0.05, 0.05, 0.05),
        apex_first=0.5,
        scanners=(-0.4, 0.4),
        blood_level=(420, 0.35),
    ),
    "ge": VendorAppearance(
        spacing=(1.4, 0.15),
        slice_spacings=(8.0, 10.0),
        myocardium=(0.38, 0.07),
        fat=(0.9, 0.2),
        lung=(0.12, 0.04),
        coil=(0.35, 0.15),
        snr=(30, 8),
        blur_mm=2.6,
        ink_probability=0.2,
        banding_probability=0.1,
        field_of_view=(270, 14),
        quarter_turns=(0.7, 0.15, 0.05, 0.1),
        apex_first=0.7,
        scanners=(-0.5, 0.5),
        blood_level=(900, 0.4),
    ),
    "canon": VendorAppearance(
        spacing=(1.2, 0.1),
        slice_spacings=(8.0, 9.0, 10.0),
        myocardium=(0.28, 0.06),
        fat=(1.1, 0.2),
        lung=(0.06, 0.03),
        coil=(0.7, 0.2),
        snr=(22, 6),
        blur_mm=1.9,
        ink_probability=0.4,
        banding_probability=0.15,
        field_of_view=(258, 14),
        quarter_turns=(0.75, 0.05, 0.1, 0.1),
        apex_first=0.4,
        scanners=(-0.4, 0.4),
        blood_level=(1500, 0.4),
    ),
}


@dataclass(frozen=True)
class Mixture:
    """The classes of one source: the normal (NOR) share, and how the share with disease divides over pathologies."""

    normal: float
    disease: dict[str, float]


ACDC_MIXTURE = Mixture(0.20, {"DCM": 0.25, "HCM": 0.25, "MINF": 0.25, "RV": 0.25})
MNMS_MIXTURE = {
    "siemens": Mixture(0.23, {"DCM": 0.35, "HCM": 0.35, "MINF": 0.10, "RV": 0.20}),
    "philips": Mixture(0.52, {"DCM": 0.30, "HCM": 0.45, "MINF": 0.15, "RV": 0.10}),
    "ge": Mixture(0.27, {"DCM": 0.35, "HCM": 0.30, "MINF": 0.20, "RV": 0.15}),
    "canon": Mixture(0.28, {"DCM": 0.30, "HCM": 0.40, "MINF": 0.15, "RV": 0.15}),
}
POOL_MIXTURE = Mixture(0.30, {"DCM": 0.25, "HCM": 0.25, "MINF": 0.25, "RV": 0.25})
