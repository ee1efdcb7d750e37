"""A site's own words for pathologies and vendors: the file of ``prepare --label-map``.

A table with the columns::

    kind    pathology or vendor
    text    what the cohort writes, in any case
    name    what it means: a pathology or vendor of docs/vocabulary.md, or the name of a further pathology
    label   1 where name is a further pathology; else optional: 0 for NOR, 1 for every other

A further pathology is a disease; whatever means normal is NOR. A text of the file comes before the standard
words, but a canonical name keeps its meaning.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import filled, read_rows, whole_number
from med_duallora.cohorts.vocabulary import (
    NORMAL,
    PATHOLOGIES,
    STANDARD,
    VENDORS,
    Vocabulary,
    pathology_key,
    vendor_key,
)
from med_duallora.errors import InputError

COLUMNS = ("kind", "text", "name")
NEW_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,19}")


def read_label_map(path: Path) -> Vocabulary:
    """Return the standard vocabulary with the words of the file added.

    Raises:
        InputError: the file cannot be read as a table, or a row of it cannot be used; names the row.
    """
    added: dict[str, dict[str, str]] = {"pathology": {}, "vendor": {}}
    for number, row in read_rows(path, COLUMNS, ("label",)):
        try:
            kind, key, name = _entry(row)
            if added[kind].setdefault(key, name) != name:
                raise InputError(f"{row['text']!r} has another meaning in a row above, {added[kind][key]}")
        except InputError as error:
            raise InputError(f"{path}, row {number}: {error}") from error
    if not any(added.values()):
        raise InputError(f"{path} holds no row")
    return Vocabulary({**STANDARD.pathologies, **added["pathology"]}, {**STANDARD.vendors, **added["vendor"]})


def _entry(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return kind, comparable text and canonical name."""
    kind = row["kind"].casefold()
    entries = {"pathology": _pathology, "vendor": _vendor}
    if kind not in entries:
        raise InputError(f"kind is {row['kind']!r}; expected pathology or vendor")
    return kind, *entries[kind](row)


def _pathology(row: Mapping[str, str]) -> tuple[str, str]:
    key, name = pathology_key(filled(row, "text")), row["name"].upper()
    if not key:
        raise InputError(f"text is {row['text']!r}, which means an empty cell")
    label = whole_number(row.get("label", ""))
    if row.get("label") and label not in (0, 1):
        raise InputError(f"label is {row['label']!r}; expected 0 (normal) or 1 (disease)")
    if name not in PATHOLOGIES:
        if not NEW_NAME.fullmatch(name):
            raise InputError(
                f"name is {row['name']!r}; expected up to 20 letters, digits and '_', beginning with a letter"
            )
        if label != 1:
            raise InputError(
                f"name {row['name']!r} is none of {', '.join(PATHOLOGIES)}; for a further disease write 1 into the "
                f"column label, for normal subjects the name {NORMAL}"
            )
    elif label not in (None, int(name != NORMAL)):
        raise InputError(f"label {label} contradicts name {name}; only {NORMAL} is 0 (normal)")
    if STANDARD.pathologies.get(key) != name and key.upper() in PATHOLOGIES:
        raise InputError(f"{row['text']!r} is itself a canonical name and cannot mean {name}")
    return key, name


def _vendor(row: Mapping[str, str]) -> tuple[str, str]:
    key, slug = vendor_key(filled(row, "text")), row["name"].casefold().replace(" ", "-")
    if not key:
        raise InputError(f"text is {row['text']!r}, in which no vendor is named")
    if slug not in VENDORS:
        raise InputError(f"name is {row['name']!r}; vendors are {', '.join(VENDORS)}")
    if STANDARD.vendors.get(key) != slug and key.replace(" ", "-") in VENDORS:
        raise InputError(f"{row['text']!r} is itself a canonical name and cannot mean {slug}")
    return key, slug
