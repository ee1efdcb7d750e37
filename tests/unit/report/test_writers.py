import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from med_duallora.report import read_run, write_report
from med_duallora.report.content import MIXED, NOT_FOR_DIAGNOSIS, REAL, SYNTHETIC, build
from med_duallora.report.document import Document, KeyNumber, Paragraph, Picture, Section, Table
from med_duallora.report.drawing import boundary
from med_duallora.report.headline import headline
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.report.tables import NONE, interval_table
from tests.unit.report.conftest import evaluation, rewrite

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
    assert len(images) == 5
    assert all(attrs["alt"] for attrs in images)


def test_all_files_are_there_and_are_pictures(server: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write_report(read_run(server), out) == out / "report.html"
    names = sorted(path.name for path in out.iterdir())
    pictures = ["accuracy.png", "boundary.svg", "loss.png", "residual.png", "time.png", "variants.png"]
    assert names == sorted([*pictures, "report.html", "report.md"])
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(PNG)
    ElementTree.parse(out / "boundary.svg")
    for address in re.findall(r"!\[.*?\]\((.*?)\)", (out / "report.md").read_text(encoding="utf-8")):
        assert (out / address).is_file()


def test_the_same_run_gives_the_same_page(server: Path) -> None:
    run = read_run(server)
    assert to_html(build(run)) == to_html(build(run))


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"phantoms": "all", "datasets": []}, SYNTHETIC),
        ({"phantoms": "some", "datasets": ["mnms"]}, MIXED),
        ({"phantoms": "none", "datasets": ["acdc", "mnms"]}, REAL),
        ({"phantoms": "none", "datasets": []}, REAL),
        (None, NOT_FOR_DIAGNOSIS),
    ],
    ids=["phantoms", "mixed", "data sets", "own patients", "unknown"],
)
def test_it_is_said_whose_hearts_these_are(server: Path, origin: dict[str, list[str]] | None, expected: str) -> None:
    rewrite(server / "evaluation.json", origin=origin)
    document = build(read_run(server))
    for text in (to_html(document), to_markdown(document)):
        assert NOT_FOR_DIAGNOSIS in text
        for sentence in (SYNTHETIC, MIXED, REAL):
            assert (sentence in text) == (sentence == expected)
        cited = [name for name, doi in (("acdc", "2018.2837502"), ("mnms", "2021.3090082")) if doi in text]
        assert cited == (origin or {"datasets": []})["datasets"]


def test_the_drawing_never_writes_over_itself() -> None:
    """Every text stays on the page and apart from the others, for short, long and many words."""
    for sites in (["a"], ["hospital-" + "x" * 55] * 5, [f"site-{n}" for n in range(40)]):
        svg = ElementTree.fromstring(boundary(sites, ["scans, labels, predictions"] * 6, "w" * 200, "1 KiB " * 40))
        width = int(svg.attrib["viewBox"].split()[2])
        boxes = [_box(element) for element in svg if element.tag.endswith("text")]
        assert all(left >= 0 and right <= width for left, right, _, _ in boxes)
        for n, (left, right, top, bottom) in enumerate(boxes):
            for other in boxes[n + 1 :]:
                apart = right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
                assert apart, f"two texts of {sites[0]} meet"


def _box(text: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of a text in a font of usual width."""
    x, y, size = (float(text.attrib[name]) for name in ("x", "y", "font-size"))
    width = 0.56 * size * len(text.text or "")
    left = {"start": x, "middle": x - width / 2, "end": x - width}[text.attrib["text-anchor"]]
    return left, left + width, y - 0.8 * size, y + 0.2 * size


def test_pictures_are_drawn_for_a_narrow_page(server: Path) -> None:
    """At 400 pixels no picture is made smaller than four fifths, so 9.5 points stay readable."""
    pictures = build(read_run(server)).pictures
    assert len(pictures) == 6
    assert all(picture.width <= 500 for picture in pictures)


def test_the_label_of_phantoms_lies_on_nothing(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    drawn = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), drawn(self, *a, **k))[1])
    build(read_run(server))
    assert len(figures) == 5
    for figure in figures:
        (label,) = figure.texts
        box = label.get_window_extent()
        others = [axes.get_tightbbox() for axes in figure.axes] + [
            legend.get_window_extent() for legend in figure.legends
        ]
        assert not any(other is not None and box.overlaps(other) for other in others)


def test_the_page_says_when_and_how_long(server: Path) -> None:
    text = to_markdown(build(read_run(server)))
    assert "18 s: for 3 rounds at 2 sites, begun 31 Jan 2026, 22:59 UTC" in text
    assert "| duration | 2 min 36 s |" in text


def test_the_headline_compares_both_adapters_with_the_backbone(server: Path) -> None:
    assert headline(read_run(server)) == (
        "Gain shown over each site's own head: +0.38, 95 % interval +0.04 to +0.58 "
        "(mean balanced accuracy over the sites 0.88 with both "
        "adapters, 0.50 with the frozen backbone and a fitted head). 0 of 6 diseased test subjects were missed, 2 of 6 "
        "normal ones taken for diseased. 2 sites, 12 test subjects."
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


def test_a_site_that_holds_its_scores_back_is_counted_as_none(server: Path) -> None:
    """As where one class of its test split is below the site's floor: no number of the page may speak for it."""
    sites = evaluation()["sites"]
    assert isinstance(sites, dict)
    rewrite(server / "evaluation.json", sites={"siemens": sites["siemens"], "philips": {}})
    run = read_run(server)
    said = headline(run)
    assert "mean balanced accuracy over the 1 of 2 sites that gave one 1.00" in said
    assert said.endswith("2 sites."), "and not the test subjects of one site as those of both"
    text = to_markdown(build(run))
    assert "Test subjects, NOR + disease: siemens 2 + 4. philips did not send the numbers." in text
    rows = {row[0]: row for row in interval_table(run, "both").rows}
    assert rows["philips"][2:] == rows["all sites"][2:] == [NONE, NONE]


def test_a_page_without_any_score_is_made(server: Path) -> None:
    rewrite(server / "evaluation.json", sites={"siemens": {}, "philips": {}})
    run = read_run(server)
    assert headline(run) == (
        "Balanced accuracy cannot be compared (2 sites): no site gave one with both adapters and with the backbone; "
        "it takes a site that trains, and a test split with enough subjects of both classes."
    )
    assert "The sites did not send the numbers of test subjects" in to_html(build(run))


def test_the_number_of_test_subjects_of_an_older_run_is_understood(server: Path) -> None:
    sites = evaluation()["sites"]
    assert isinstance(sites, dict)
    older = {
        site: {"n_subjects" if name == "n_test_subjects" else name: value for name, value in scores.items()}
        for site, scores in sites.items()
    }
    rewrite(server / "evaluation.json", sites=older)
    assert headline(read_run(server)).endswith("2 sites, 12 test subjects.")


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
        ({}, "global adapter with the head's weights", {"local adapter", "bias of the head"}),
        ({"lora": {"head_policy": "local"}}, "global adapter", {"local adapter", "classification head"}),
        ({"lora": {"head_policy": "global"}}, "global adapter and head", {"local adapter"}),
        ({"method": "fedavg-lora"}, "global adapter and head", set()),
        ({"method": "fedsa-lora"}, "A of the global adapter", {"B of the global adapter", "classification head"}),
        ({"method": "ffa-lora"}, "B of the global adapter and head", set()),
        ({"method": "fedavg-full"}, "weights of the adapted blocks and head", set()),
    ],
    ids=["head is shared", "head stays", "head is sent", "no local adapter", "A is sent", "B is sent", "no adapter"],
)
def test_the_boundary_shows_what_this_job_sends(
    server: Path, settings: dict[str, object], payload: str, stays: set[str]
) -> None:
    (server / "job.json").write_text(json.dumps(settings))
    picture = next(item for item in build(read_run(server)).pictures if item.name == "boundary.svg")
    texts = [element.text for element in ElementTree.fromstring(picture.content).iter() if element.tag.endswith("text")]
    assert payload in texts
    shown = {str(text).removeprefix("• ") for text in texts}
    names = {"local adapter", "classification head", "bias of the head", "B of the global adapter"}
    assert shown & names == stays


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


def test_a_tables_caption_is_no_wider_than_the_screen(small: Document) -> None:
    """The table may be wider, and is scrolled; its caption would be cut off."""
    text = to_html(small)
    assert text.count("<caption><span>") == text.count("<caption>") > 0
    assert re.search(r"caption span \{[^}]*max-width: calc\(100vw", text)
