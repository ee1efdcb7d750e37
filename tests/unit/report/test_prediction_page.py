from dataclasses import replace

import numpy as np
import pytest

from med_duallora.inference.gate import Gate
from med_duallora.inference.occlusion import Occlusion
from med_duallora.report.document import Document, Paragraph, Picture, Table
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.report.prediction_page import MOST_SHOWN, ShownScan, build

CHANGE = np.array([[0.01, -0.3], [0.0, 0.1]])
SCAN = ShownScan("patient <1>", 0.7312, 0.4, "disease")
SHOWN = replace(
    SCAN,
    mid_slices=np.random.default_rng(0).integers(0, 255, (2, 20, 16)).astype(np.uint8),
    box=(2, 18, 0, 16),
    crop_window=(12, 204, 30, 222),
    occlusion=Occlusion(CHANGE, (2, 10, 18), (0, 8, 16)),
)


def page(*scans: ShownScan, gate: Gate | None = None, synthetic: bool = False) -> Document:
    return build(scans, "siemens, experiment demo", synthetic=synthetic, gate=gate)


def blocks(document: Document, kind: type) -> list:
    return [block for section in document.sections for block in section.blocks if isinstance(block, kind)]


def test_one_scan_is_said_in_one_sentence() -> None:
    document = page(SCAN)
    assert document.headline == "Probability of disease 0.731, at or above the threshold 0.400: disease."
    below = page(replace(SCAN, probability=0.39999, decision="normal"))
    assert below.headline == "Probability of disease 0.400, below the threshold 0.400: normal."
    assert page(replace(SCAN, probability=0.4)).headline.count("at or above") == 1


@pytest.mark.parametrize(
    ("probability", "text"), [(0.0, "0.000"), (1e-5, "below 0.001"), (0.99999, "above 0.999"), (1.0, "1.000")]
)
def test_what_is_not_certain_does_not_look_certain(probability: float, text: str) -> None:
    assert f"Probability of disease {text}" in page(replace(SCAN, probability=probability)).headline


def test_a_cohort_is_counted_and_listed() -> None:
    other = replace(SCAN, name="b", probability=0.2, decision="normal", against_trust=("one reason", "another"))
    document = page(SCAN, other)
    assert document.headline == (
        "1 of 2 scans lie at or above the threshold. Something speaks against trusting 1 of them."
    )
    assert [number.value for number in document.key_numbers] == ["2", "1", "0.400", "1"]
    table = blocks(document, Table)[0]
    assert table.header == ["scan", "probability of disease", "decision", "against trust"]
    assert table.rows[1] == ["b", "0.200", "normal", "one reason; another"]
    assert table.strong_rows == [1]
    assert "Against trusting it: one reason; another." in [block.text for block in blocks(document, Paragraph)]


def test_columns_appear_where_there_is_something_to_say() -> None:
    table = blocks(page(replace(SCAN, calibrated=0.9, interval=(0.6, 0.8))), Table)[0]
    assert table.rows == [["patient <1>", "0.731", "0.900", "0.600 to 0.800", "disease", "nothing known"]]


@pytest.mark.parametrize("scan", [SCAN, replace(SHOWN, occlusion=None), SHOWN])
def test_every_picture_has_words_of_its_own(scan: ShownScan) -> None:
    (picture,) = blocks(page(scan), Picture)
    assert "0.731" in picture.alt
    assert "not for diagnosis" in picture.caption
    assert ("ED and ES" in picture.alt) == (scan.mid_slices is not None)
    assert ("blanking" in picture.alt) == (scan.occlusion is not None)


def test_the_parts_that_change_most_stand_in_words_with_what_they_are_not() -> None:
    document = page(SHOWN)
    table = blocks(document, Table)[1]
    assert table.rows[0] == ["2 to 10 mm", "8 to 16 mm", "−0.300", "0.431"]
    assert table.rows[1] == ["10 to 18 mm", "8 to 16 mm", "+0.100", "0.831"]
    texts = [block.text for block in blocks(document, Paragraph)]
    assert any("not a cause" in text for text in texts)
    assert "Cut out of the whole image from 12 to 204 mm along x and 30 to 222 mm along y." in texts


def test_a_model_that_is_not_released_says_so_first() -> None:
    gate = Gate(False, "Release gate failed: specificity 0.50, floor 0.6.")
    document = page(SCAN, gate=gate)
    assert document.headline.startswith("This model is not released. Release gate failed: specificity 0.50")
    assert page(SCAN, gate=Gate(True, "Passed.")).headline.startswith("Probability")
    assert "Passed." in [block.text for block in blocks(page(SCAN, gate=Gate(True, "Passed.")), Paragraph)]


def test_the_banner_says_whose_images_they_are_and_what_they_are_not_for() -> None:
    assert page(SHOWN).banner.startswith("This page shows images of this site's subjects: it must not leave the site.")
    assert page(SHOWN, synthetic=True).banner == "Synthetic phantoms. Research use, not for diagnosis."


def test_pictures_are_shown_of_the_first_scans_and_all_are_listed() -> None:
    scans = [replace(SCAN, name=f"s{number}") for number in range(MOST_SHOWN + 3)]
    document = page(*scans)
    assert len(document.pictures) == MOST_SHOWN
    assert len(blocks(document, Table)[0].rows) == MOST_SHOWN + 3
    assert any("3 more are in the table" in block.text for block in blocks(document, Paragraph))
    assert len({picture.name for picture in document.pictures}) == MOST_SHOWN


def test_the_page_is_whole_and_names_are_escaped() -> None:
    text = to_html(page(SHOWN, replace(SHOWN, name="$x$ & y")))
    assert "patient &lt;1&gt;" in text
    assert "patient <1>" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "# Predictions of 2 scans" in to_markdown(page(SHOWN, SHOWN))


def test_a_page_needs_a_scan() -> None:
    with pytest.raises(ValueError, match="at least one"):
        page()
