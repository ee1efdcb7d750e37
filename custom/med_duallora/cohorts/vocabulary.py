"""The words of raw cohorts for vendors and pathologies, and the one name that each has here.

``docs/vocabulary.md`` lists them all. A site adds its own with ``prepare --label-map`` (see ``labelmap``).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from med_duallora.errors import SubjectRefused

NORMAL = "NOR"
ANY_DISEASE = "OTHER"  # of a subject of whom only "diseased" is known

# Canonical name and meaning. One disease that two cohorts name differently must not become two strata.
PATHOLOGIES = {
    "NOR": "normal: no heart disease",
    "DCM": "dilated cardiomyopathy",
    "HCM": "hypertrophic cardiomyopathy",
    "MINF": "myocardial infarction",
    "RV": "abnormal (ACDC) or dilated (M&Ms-2) right ventricle",
    "HHD": "hypertensive heart disease",
    "AHS": "athlete's heart syndrome",
    "IHD": "ischaemic heart disease",
    "LVNC": "left-ventricular non-compaction",
    "LV": "dilated left ventricle",
    "ARR": "arrhythmogenic cardiomyopathy",
    "FALL": "tetralogy of Fallot",
    "CIA": "inter-atrial communication",
    "TRI": "tricuspid regurgitation",
    "OTHER": "any other disease, or one that is not stated",
}

# What cohorts write, beside the canonical name itself, in the form of ``pathology_key``.
PATHOLOGY_WORDS: dict[str, tuple[str, ...]] = {
    "NOR": (
        *("normal", "healthy", "control", "controls", "volunteer", "no disease", "no heart disease"),
        *("healthy control", "healthy subject", "healthy volunteer", "normal control", "normal heart"),
    ),
    "DCM": ("dilated cardiomyopathy", "dilatative cardiomyopathy"),
    "HCM": ("hypertrophic cardiomyopathy", "hypertrophic obstructive cardiomyopathy", "hocm"),
    "MINF": (
        *("mi", "infarct", "infarction", "myocardial infarct", "myocardial infarction", "previous infarction"),
        *("previous myocardial infarction", "acute myocardial infarction", "chronic myocardial infarction"),
        *("heart failure with infarct", "heart failure with infarction", "hf i"),
    ),
    "RV": (
        *("arv", "drv", "abnormal rv", "abnormal right ventricle", "dilated rv", "dilated right ventricle"),
        *("right ventricular dilatation", "right ventricular dilation"),
    ),
    "HHD": ("hypertensive heart disease", "hypertensive cardiomyopathy"),
    "AHS": ("athlete's heart", "athletes heart", "athlete's heart syndrome", "athletic heart syndrome"),
    "IHD": (
        *("ischaemic heart disease", "ischemic heart disease", "ischaemic cardiomyopathy", "ischemic cardiomyopathy"),
        *("coronary artery disease", "coronary heart disease"),
    ),
    "LVNC": (
        *("non compaction", "noncompaction", "non compaction cardiomyopathy", "noncompaction cardiomyopathy"),
        *("left ventricular non compaction", "left ventricular noncompaction"),
    ),
    "LV": ("dlv", "dilated lv", "dilated left ventricle"),
    "ARR": (
        *("arvc", "arvd", "arrhythmogenic cardiomyopathy", "arrhythmogenic right ventricular cardiomyopathy"),
        "arrhythmogenic right ventricular dysplasia",
    ),
    "FALL": ("fallot", "tof", "tetralogy of fallot"),
    "CIA": ("asd", "atrial septal defect", "interatrial communication", "inter atrial communication"),
    "TRI": ("tricuspid regurgitation", "tricuspid insufficiency"),
    "OTHER": (
        *("others", "other disease", "other pathology", "disease", "diseased", "pathology", "pathological", "abnormal"),
        *("cardiomyopathy", "heart disease", "heart failure", "heart failure without infarct"),
        *("heart failure without infarction", "heart failure no infarct", "hf ni"),
        *("hypertrophy", "left ventricular hypertrophy"),  # a sign of several diseases
    ),
}

VENDORS = ("siemens", "philips", "ge", "canon", "united-imaging", "neusoft", "other")

# What cohorts and DICOM headers write, in the form of ``vendor_key``: without ``COMPANY_WORDS``.
VENDOR_WORDS: dict[str, tuple[str, ...]] = {
    "siemens": ("siemens",),
    "philips": ("philips",),
    "ge": ("ge", "gems", "general electric"),
    "canon": ("canon", "toshiba"),  # Canon took over Toshiba's medical imaging and its scanners' line
    "united-imaging": ("united imaging", "uih"),
    "neusoft": ("neusoft",),
    "other": ("other", "others"),
}

# Legal forms, branches, places and kinds of business in makers' names: they do not tell one maker from another.
COMPANY_WORDS = frozenset(
    (
        *("ag", "bv", "co", "company", "corp", "corporation", "gmbh", "inc", "kg", "limited", "llc", "ltd", "nv", "se"),
        *("medical", "medizintechnik", "healthcare", "healthineers", "health", "mec", "system", "systems", "device"),
        *("devices", "technology", "technologies", "precision", "dmc", "mr", "mri", "magnetic", "resonance"),
        *("china", "deutschland", "europe", "germany", "japan", "nederland", "netherlands", "uk", "us", "usa"),
        *("beijing", "shanghai", "shenyang", "shenzhen", "suzhou"),
    )
)


def pathology_key(text: str) -> str:
    """Return ``text`` as pathologies are compared: any case, and blanks, hyphens and underscores alike.

    Other marks stay, so that ``HCM/DCM`` or ``healthy?`` are not known words.
    """
    return " ".join(re.sub(r"[-_\s]+", " ", text.replace("’", "'")).casefold().split())


def vendor_key(text: str) -> str:
    """Return ``text`` as vendors are compared: any case, without punctuation and ``COMPANY_WORDS``.

    ``Philips Medical Systems Nederland B.V.`` becomes ``philips``.
    """
    words = re.sub(r"[-_\s,&()]+", " ", text.replace(".", "")).casefold().split()
    return " ".join(word for word in words if word not in COMPANY_WORDS)


def _by_word(words: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {word: name for name, group in words.items() for word in group}


@dataclass(frozen=True)
class Vocabulary:
    """The words for vendors and pathologies that a run understands.

    Args:
        pathologies: canonical name by ``pathology_key``.
        vendors: slug by ``vendor_key``.
    """

    pathologies: Mapping[str, str] = field(
        default_factory=lambda: {name.casefold(): name for name in PATHOLOGIES} | _by_word(PATHOLOGY_WORDS)
    )
    vendors: Mapping[str, str] = field(default_factory=lambda: _by_word(VENDOR_WORDS))

    def pathology(self, text: str) -> str:
        """Return the canonical name of a pathology; SubjectRefused ``unknown-pathology``."""
        name = self.pathologies.get(pathology_key(text))
        if name is None:
            known = ", ".join(dict.fromkeys(self.pathologies.values()))
            hint = "0 and 1 belong into a column 'label'" if text.strip() in ("0", "1") else "--label-map adds words"
            raise SubjectRefused(
                "unknown-pathology",
                f"pathology {text!r} is unknown; known are {known} and the words in docs/vocabulary.md; {hint}",
            )
        return name

    def vendor(self, text: str) -> str:
        """Return the slug of a scanner vendor's name; SubjectRefused ``unknown-vendor``."""
        slug = self.vendors.get(vendor_key(text))
        if slug is None:
            raise SubjectRefused(
                "unknown-vendor",
                f"vendor {text!r} is unknown; known are {', '.join(VENDORS)} and the names in docs/vocabulary.md; "
                "write 'other', or add the name with --label-map",
            )
        return slug

    def added(self) -> dict[str, dict[str, str]]:
        """Return what is beside the standard words, by kind: the record of a label map."""
        pairs = {"pathology": (self.pathologies, STANDARD.pathologies), "vendor": (self.vendors, STANDARD.vendors)}
        added = {
            kind: {word: name for word, name in mine.items() if standard.get(word) != name}
            for kind, (mine, standard) in pairs.items()
        }
        return {kind: words for kind, words in added.items() if words}


STANDARD = Vocabulary()


def canonical_pathology(text: str) -> str:
    """Return the canonical name of a pathology in the standard words; SubjectRefused ``unknown-pathology``."""
    return STANDARD.pathology(text)


def vendor_slug(text: str) -> str:
    """Return the slug of a vendor in the standard words; SubjectRefused ``unknown-vendor``."""
    return STANDARD.vendor(text)
