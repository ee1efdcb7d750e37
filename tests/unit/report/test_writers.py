import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from med_duallora.report import read_run, write_report
from med_duallora.report.content import NOT_FOR_DIAGNOSIS, SYNTHETIC, build, headline
from med_duallora.report.document import Document, KeyNumber, Paragraph, Picture, Section, Table
from med_duallora.report.drawing import boundary
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from tests.unit.report.conftest import rewrite

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def small() -> Document:
    blocks = [
        Paragraph("a < b"),
        Table("Scores", ["site", "x", "y"], [["<b>ge</b>", "1|2", ""], ["all", "3", "4"]], note="n", strong_rows=[1]),
        Picture("curve.png", PNG, 'a "quoted" picture', "below", 400),
    ]
    return Document("T", "B", "H", [KeyNumber("0.9", "accuracy")], [Section("S & T", blocks)])


def test_the_page_asks_nobody_for_anything(server: Path, tmp_path: Path) -> None:
    text = write_report(read_run(server), tmp_path / "out").read_text(encoding="utf-8")
    page = Page(text)
    addresses = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses if address)
    assert not re.search(r"url\((?!#)|@import|https?:", text.replace("xmlns='http://www.w3.org/2000/svg'", ""))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    policy = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_picture_has_a_description(server: Path) -> None:
    page = Page(to_html(build(read_run(server))))
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 3
    assert all(attrs["alt"] for attrs in images)


def test_all_files_are_there_and_are_pictures(server: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write_report(read_run(server), out) == out / "report.html"
    names = sorted(path.name for path in out.iterdir())
    assert names == ["boundary.svg", "curves.png", "report.html", "report.md", "time.png", "variants.png"]
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(PNG)
    ElementTree.parse(out / "boundary.svg")
    for address in re.findall(r"!\[.*?\]\((.*?)\)", (out / "report.md").read_text(encoding="utf-8")):
        assert (out / address).is_file()


def test_the_same_run_gives_the_same_page(server: Path) -> None:
    run = read_run(server)
    assert to_html(build(run)) == to_html(build(run))


@pytest.mark.parametrize("synthetic", [True, False])
def test_phantoms_are_called_phantoms_and_nothing_is_for_diagnosis(server: Path, synthetic: bool) -> None:
    rewrite(server / "evaluation.json", synthetic=synthetic or None)
    document = build(read_run(server))
    for text in (to_html(document), to_markdown(document)):
        assert NOT_FOR_DIAGNOSIS in text
        assert (SYNTHETIC in text) == synthetic


def test_the_headline_compares_both_adapters_with_the_backbone(server: Path) -> None:
    assert headline(read_run(server)) == (
        "Mean balanced accuracy over the sites: 0.88 with both adapters, 0.50 with the frozen backbone and a fitted "
        "head (+0.38). 2 sites, 12 test subjects."
    )


def test_the_headline_says_when_nothing_can_be_compared(server: Path) -> None:
    rewrite(server / "evaluation.json", sites={"ge": {"both.sensitivity": 1.0, "n_positive": 2, "n_negative": 0}})
    assert "cannot be compared (1 site)" in headline(read_run(server))


def test_counts_are_normal_before_disease(server: Path) -> None:
    """Siemens has 4 diseased and 2 normal test subjects, Philips the other way round."""
    assert "Test subjects, NOR + disease: siemens 2 + 4, philips 4 + 2." in to_markdown(build(read_run(server)))


def test_sites_without_counts_are_not_given_any(server: Path) -> None:
    rewrite(
        server / "evaluation.json", sites={"ge": {"both.balanced_accuracy": 0.8, "backbone.balanced_accuracy": 0.5}}
    )
    assert "Scores of the best global adapter. The sites did not send the numbers of test subjects" in to_markdown(
        build(read_run(server))
    )


def test_refusals_and_failures_are_told(server: Path) -> None:
    lines = (server / "round_metrics.jsonl").read_text().splitlines()
    first = {**json.loads(lines[0]), "refused": [{"site": "ge", "reason": "another round"}]}
    (server / "round_metrics.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    rewrite(server / "evaluation.json", failed={"canon": "no answer"})
    text = to_markdown(build(read_run(server)))
    assert "refused 1 contribution(s): ge: another round" in text
    assert "Without a result, and not included in any number here: canon: no answer." in text


@pytest.mark.parametrize(
    ("settings", "payload", "stays"),
    [
        ({}, "global adapter", {"local adapter", "classification head"}),
        ({"lora": {"head_policy": "global"}}, "global adapter and head", {"local adapter"}),
        ({"method": "fedavg-lora"}, "global adapter and head", set()),
    ],
    ids=["head stays", "head is sent", "no local adapter"],
)
def test_the_boundary_shows_what_this_job_sends(
    server: Path, settings: dict[str, object], payload: str, stays: set[str]
) -> None:
    (server / "job.json").write_text(json.dumps(settings))
    picture = next(item for item in build(read_run(server)).pictures if item.name == "boundary.svg")
    texts = [element.text for element in ElementTree.fromstring(picture.content).iter() if element.tag.endswith("text")]
    assert payload in texts
    shown = {str(text).removeprefix("• ") for text in texts}
    assert shown & {"local adapter", "classification head"} == stays


def test_many_sites_fit_into_the_drawing() -> None:
    svg = boundary([f"site<{n}>" for n in range(40)], ["scans"], "global adapter", "1 KiB")
    ElementTree.fromstring(svg)
    assert svg.count("rx='10'") == 5
    assert "site&lt;4&gt;, …" in svg


def test_html_escapes_every_text(small: Document) -> None:
    text = to_html(small)
    assert "<b>ge</b>" not in text
    assert "a &lt; b" in text
    assert 'alt="a &#34;quoted&#34; picture"' in text
    assert "S &amp; T" in text


def test_markdown_tables_survive_their_cells(small: Document) -> None:
    text = to_markdown(small)
    assert "| <b>ge</b> | 1\\|2 |  |" in text
    assert "| **all** | **3** | **4** |" in text
    assert '![a "quoted" picture](curve.png)\n\n*below*' in text


def test_a_table_with_a_short_row_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        Table("Scores", ["a", "b"], [["1"]])


@pytest.mark.parametrize(
    ("changes", "expected", "n_tables"),
    [
        ({"round": 1}, "Scores of the best global adapter, after round 2 of 3. Test subjects", 0),
        ({"models": {"last": {"sites": {"ge": {"both.auroc": 1.0}}}}}, "Scores of the best global adapter. Test", 1),
    ],
    ids=["one adapter", "two adapters"],
)
def test_it_is_said_which_adapter_the_scores_belong_to(
    server: Path, changes: dict[str, object], expected: str, n_tables: int
) -> None:
    rewrite(server / "evaluation.json", **changes)
    text = to_markdown(build(read_run(server)))
    assert expected in text
    assert text.count("Evaluated global adapters") == n_tables
