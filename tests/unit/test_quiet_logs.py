"""The fixture that listens to the logs of all tests would hear what it is there for."""

import logging
from pathlib import Path

from tests.conftest import COHORT_WORDS, Listener


def test_every_name_in_a_tiny_cohort_would_be_found(tiny_cohorts: dict[str, Path]) -> None:
    for folder in tiny_cohorts.values():
        paths = list(folder.rglob("*"))
        assert len(paths) > 30
        for path in paths:
            assert COHORT_WORDS.search(path.name), path.name
        assert COHORT_WORDS.search(f"reading {folder} now")


def test_other_texts_are_left_alone() -> None:
    for text in ("ge answered round 3", "image 0001 of 12", "siemens: 6 subjects", "page007", "prepared 3 sites"):
        assert not COHORT_WORDS.search(text), text


def test_records_are_heard_from_info_on_with_their_exceptions() -> None:
    listener, logger = Listener(logging.INFO), logging.getLogger("med_duallora.listening")
    logger.addHandler(listener)
    try:
        logger.debug("not this")
        logger.info("this")
        try:
            raise ValueError("and that")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(listener)
    assert listener.texts[0] == "this"
    assert len(listener.texts) == 2 and "ValueError: and that" in listener.texts[1]
