"""Which cohort a subject goes to: one per value of a column, or one per simulated site; and what sites are called."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from med_duallora.cohorts.subject import VENDORS, RawSubject
from med_duallora.errors import CohortError, ConfigError

SITE_COLUMNS = ("vendor", "centre", "dataset")

# FLARE 2.9 accepts letters, digits, '-' and '_' in a client's name, and writes it into a certificate, where names end
# at 64 characters. A first '-' would be read as an option.
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESERVED = ("all", "client", "server", "simulator_server")
MAX_SLUG = 40
WITHOUT_ACCENT = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "ı": "i"})
MAX_SIMULATED = 100  # clients in FLARE's simulator


@dataclass(frozen=True)
class Sites:
    """What makes a site.

    Args:
        columns: of the subjects' table; every combination of their values is a site. Some of ``SITE_COLUMNS``; none:
            all subjects together, which takes simulated sites.
        n_simulated: deal the subjects of each of these out to this many made-up sites; None: do not.
    """

    columns: tuple[str, ...] = ("vendor",)
    n_simulated: int | None = None

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: a column is unknown or named twice, or the number is out of range.
        """
        unknown = [column for column in self.columns if column not in SITE_COLUMNS]
        if unknown:
            raise ConfigError(f"--site-column {unknown[0]!r} makes no sites; choose from {', '.join(SITE_COLUMNS)}")
        if (not self.columns and self.n_simulated is None) or len(set(self.columns)) < len(self.columns):
            raise ConfigError("--site-column must name at least one column, and each only once")
        if self.n_simulated is not None and not 2 <= self.n_simulated <= MAX_SIMULATED:
            raise ConfigError(f"{self.n_simulated} simulated sites, but there must be 2 to {MAX_SIMULATED}")


def check_site_name(name: str) -> None:
    """Find out whether FLARE can run a site of this name.

    Raises:
        ConfigError: it cannot; says what is allowed.
    """
    if not SITE_NAME.fullmatch(name) or name.lower() in RESERVED:
        raise ConfigError(
            f"{name!r} cannot be the name of a site: FLARE takes up to 64 letters, digits, '-' and '_' that "
            f"begin with a letter or digit, except {', '.join(RESERVED)}; rename the cohort's folder"
        )


def sites_of(subjects: Sequence[RawSubject], sites: Sites, seed: int) -> dict[str, str]:
    """Return the site of every subject by the subject's name.

    Raises:
        CohortError: two different values would give one site the same name, or there are fewer subjects than sites.
    """
    told = _told(subjects, sites)
    if sites.n_simulated is None:
        return told
    found: dict[str, str] = {}
    for name in sorted(set(told.values())):
        members = [subject for subject in subjects if told[subject.subject] == name]
        found |= _dealt(members, name or "site", sites.n_simulated, seed)
    return found


def _told(subjects: Sequence[RawSubject], sites: Sites) -> dict[str, str]:
    """Return what the columns call each subject's site; nothing without columns."""
    names: dict[str, str] = {}
    meant: dict[str, tuple[str, ...]] = {}  # upper and lower case do not make two sites
    for subject in subjects:
        values = site_values(subject, sites)
        name = "-".join(site_slug(value, column) for column, value in zip(sites.columns, values, strict=True))
        name = _shortened(name)
        first = meant.setdefault(name, values)
        if [value.casefold() for value in first] != [value.casefold() for value in values]:
            raise CohortError(
                f"the sites {' / '.join(first)!r} and {' / '.join(values)!r} would both be called {name!r}: write "
                f"the column {' or '.join(sites.columns)} alike where one site is meant, and more different where not"
            )
        names[subject.subject] = name
    return names


def site_values(subject: RawSubject, sites: Sites) -> tuple[str, ...]:
    """Return the values of the columns that make the subject's site, as the source writes them."""
    return tuple(" ".join(str(getattr(subject, column)).split()) for column in sites.columns)


def site_slug(value: str, column: str) -> str:
    """Return a name for a folder and a FLARE client: lower-case letters, digits and '-', beginning with a letter.

    Accents are dropped. Where letters of another script are, a few digits of a hash take their place, so that two
    hospitals never share a name only because neither can be written in ASCII.
    """
    value = value.casefold()
    folded = unicodedata.normalize("NFKD", value.translate(WITHOUT_ACCENT))
    kept = "".join(letter for letter in folded if not unicodedata.combining(letter))
    slug = re.sub(r"[^a-z0-9]+", "-", kept).strip("-")
    if not slug:
        return f"{column}-{_digits(value)}" if value else f"unknown-{column}"
    if any(letter.isalnum() and not letter.isascii() for letter in kept):
        slug = f"{slug}-{_digits(value)}"
    if slug[0].isdigit() or slug in RESERVED:
        slug = f"{column}-{slug}"
    return slug


def in_order(names: Iterable[str]) -> list[str]:
    """Return sites in the order of tables: vendors in their own, others by name with numbers in their order."""

    def key(name: str) -> tuple[int, list[tuple[int, str]]]:
        parts = re.findall(r"\d+|\D+", name)
        rank = VENDORS.index(name) if name in VENDORS else len(VENDORS)
        return rank, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    return sorted(set(names), key=key)


def _dealt(subjects: Sequence[RawSubject], name: str, n_sites: int, seed: int) -> dict[str, str]:
    """Deal subjects out like cards, by class and pathology and shuffled inside: sites are alike but for chance."""
    if len(subjects) < n_sites:
        raise CohortError(
            f"{len(subjects)} subjects cannot be dealt out to {n_sites} simulated sites, {name}-1 to {name}-{n_sites}; "
            "lower --simulated-sites"
        )

    def key(subject: RawSubject) -> tuple[int, str, str]:
        order = hashlib.sha256(f"{seed}:site:{subject.subject}".encode()).hexdigest()
        return subject.label, subject.pathology, order

    ordered = enumerate(sorted(subjects, key=key))
    return {subject.subject: f"{name}-{number % n_sites + 1}" for number, subject in ordered}


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_SLUG else f"{name[: MAX_SLUG - 7].rstrip('-')}-{_digits(name)}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
