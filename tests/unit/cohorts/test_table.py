from pathlib import Path
from random import Random

import pytest

from med_duallora.cohorts import table
from med_duallora.cohorts.labelmap import read_label_map
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import write_csv


def row(**changes: str) -> dict[str, str]:
    values = {"subject": "s1", "ed": "s1/ed.nii.gz", "es": "s1/es.nii.gz"}
    return values | {"pathology": "NOR", "vendor": "GE Healthcare", "centre": "Oslo"} | changes


def test_the_required_columns_suffice(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [row()])
    (subject,), refused = table.read(tmp_path / "t.csv")
    assert not refused
    assert (subject.subject, subject.pathology, subject.vendor, subject.centre) == ("s1", "NOR", "ge", "Oslo")
    # Paths are relative to the table, so that a cohort can be moved.
    assert (subject.ed, subject.es) == (ImageSource(tmp_path / "s1/ed.nii.gz"), ImageSource(tmp_path / "s1/es.nii.gz"))
    assert (subject.ed_segmentation, subject.official_split) == (None, None)


def test_optional_columns(tmp_path: Path) -> None:
    more = {"ed_frame": "0", "es_frame": "7", "ed_segmentation": "gt.nii", "es_segmentation": "", "split": "val"}
    write_csv(tmp_path / "t.csv", [row(ed="c.nii", es="c.nii", segmentation_labels="lv-myo-rv", **more)])
    (subject,), _ = table.read(tmp_path / "t.csv")
    assert (subject.ed, subject.es) == (ImageSource(tmp_path / "c.nii", 0), ImageSource(tmp_path / "c.nii", 7))
    assert (subject.ed_segmentation, subject.es_segmentation) == (ImageSource(tmp_path / "gt.nii", 0), None)
    assert (subject.label_numbers, subject.official_split) == ((0, 3, 2, 1), "val")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject": "a/b"}, "bad-metadata"),
        ({"ed": ""}, "missing-file"),
        ({"es": "s1/ed.nii.gz"}, "unlabelled"),  # the same image twice
        ({"pathology": "sick"}, "unknown-pathology"),
        ({"vendor": "Hitachi"}, "unknown-vendor"),
        ({"ed_frame": "1.5"}, "bad-metadata"),
        ({"split": "training"}, "bad-metadata"),
        ({"segmentation_labels": "3-2-1"}, "bad-metadata"),
        ({"subject": "NA"}, "bad-metadata"),  # in a column that must be filled, empty is not a value
        ({"ed": "n/a"}, "missing-file"),
        ({"pathology": "none"}, "unknown-pathology"),  # not healthy: nobody filled it in
        ({"pathology": "1"}, "unknown-pathology"),
        ({"vendor": "-"}, "unknown-vendor"),
        ({"centre": "nan"}, "bad-metadata"),
        ({"label": "2"}, "bad-metadata"),
        ({"label": "yes"}, "bad-metadata"),
        ({"pathology": "NA", "label": "NA"}, "unknown-pathology"),
        ({"pathology": "Normal", "label": "1"}, "bad-metadata"),  # they contradict each other
        ({"pathology": "HCM", "label": "0"}, "bad-metadata"),
    ],
)
def test_unusable_rows_are_refused(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    blank = dict.fromkeys(("ed_frame", "split", "segmentation_labels", "label"), "")
    write_csv(tmp_path / "t.csv", [row(subject="s0") | blank, row() | blank | changes])
    subjects, refused = table.read(tmp_path / "t.csv")
    assert [subject.subject for subject in subjects] == ["s0"]
    assert [(item.dataset, item.reason) for item in refused] == [("table", reason)]
    assert refused[0].source == f"{tmp_path / 't.csv'}, row 3"


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ("centre", "column 'centre'"),
        ("pathology", r"column 'pathology' \(or 'label'\)"),
        ("ed_segmentatoin", "unknown column 'ed_segmentatoin'; is 'ed_segmentation' meant"),
        ("weight", "unknown column 'weight'; known are"),
    ],
)
def test_missing_and_misspelt_columns_are_refused(tmp_path: Path, column: str, named: str) -> None:
    values = row()
    if column in values:
        del values[column]
    else:
        values[column] = ""
    write_csv(tmp_path / "t.csv", [values])
    with pytest.raises(CohortError, match=named):
        table.read(tmp_path / "t.csv")


@pytest.mark.parametrize("blank", ["", "NA", "n/a", "nan", "None", "-"])
def test_an_empty_optional_cell_is_empty_whatever_is_written_there(tmp_path: Path, blank: str) -> None:
    write_csv(tmp_path / "t.csv", [row() | dict.fromkeys(table.OPTIONAL_COLUMNS, blank)])
    (subject,), refused = table.read(tmp_path / "t.csv")
    assert not refused
    write_csv(tmp_path / "t.csv", [row()])
    assert subject == table.read(tmp_path / "t.csv")[0][0]


def test_frames_are_read_as_data_frames_write_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [row(ed="c.nii", es="c.nii", ed_frame="0.0", es_frame="7.0")])
    (subject,), _ = table.read(tmp_path / "t.csv")
    assert (subject.ed.frame, subject.es.frame) == (0, 7)


@pytest.mark.parametrize(
    ("pathology", "label", "name"),
    [
        (None, "0", "NOR"),
        (None, "1.0", "OTHER"),
        ("NA", "0", "NOR"),
        ("", "1", "OTHER"),
        ("healthy control", "0", "NOR"),
        ("Dilated cardiomyopathy", "1", "DCM"),
        ("HCM", "", "HCM"),
    ],
)
def test_a_label_stands_beside_or_instead_of_a_pathology(
    tmp_path: Path, pathology: str | None, label: str, name: str
) -> None:
    values = row(label=label)
    values |= {"pathology": pathology or ""}
    if pathology is None:
        del values["pathology"]
    write_csv(tmp_path / "t.csv", [values])
    (subject,), refused = table.read(tmp_path / "t.csv")
    assert not refused
    assert (subject.pathology, subject.label) == (name, int(name != "NOR"))


def test_a_spreadsheets_table_is_read_and_a_bad_row_costs_no_other(tmp_path: Path) -> None:
    lines = [
        "sep=;",
        "Subject;ED;ES;Pathology;Vendor;Centre;ED Segmentation;;",
        "s1;ed.nii;es.nii;Normal;SIEMENS;Besançon;NA;;",
        "s2;ed.nii;es.nii;Normal",
        "s3;ed2.nii;es2.nii;control;TOSHIBA_MEC;Köln;gt.nii;;",
    ]
    (tmp_path / "t.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    subjects, (refusal,) = table.read(tmp_path / "t.csv")
    assert [(s.subject, s.centre, s.vendor) for s in subjects] == [
        ("s1", "Besançon", "siemens"),
        ("s3", "Köln", "canon"),
    ]
    assert subjects[1].ed_segmentation == ImageSource(tmp_path / "gt.nii")
    assert (refusal.subject, refusal.reason, refusal.source.split(", ")[-1]) == ("s2", "bad-metadata", "row 4")


def test_the_cine_is_the_column_or_the_file_of_both_frames(tmp_path: Path) -> None:
    frames = {"ed_frame": "0", "es_frame": "7"}
    rows = [row(), row(cine="c.nii"), row(ed="c.nii", es="c.nii", **frames), row(ed="c.nii", es="d.nii", **frames)]
    columns = [*table.COLUMNS, *table.OPTIONAL_COLUMNS]
    write_csv(tmp_path / "t.csv", [dict.fromkeys(columns, "") | values for values in rows])
    subjects, _ = table.read(tmp_path / "t.csv")
    cine = ImageSource(tmp_path / "c.nii")
    assert [subject.cine for subject in subjects] == [None, cine, cine, None]


def test_words_of_a_label_map_are_understood(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("kind,text,name,label\npathology,HFpEF,HFPEF,1\nvendor,Hitachi,other,\n")
    write_csv(tmp_path / "t.csv", [row(pathology="hfpef", vendor="HITACHI")])
    (subject,), refused = table.read(tmp_path / "t.csv", read_label_map(tmp_path / "words.csv"))
    assert not refused
    assert (subject.pathology, subject.vendor, subject.label) == ("HFPEF", "other", 1)


def test_a_workbook_is_sent_back_to_be_saved_as_csv(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CohortError, match="save it as CSV"):
        table.read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_damaged_tables_end_in_rows_refusals_or_one_clear_error(tmp_path: Path, encoding: str) -> None:
    random = Random(encoding)
    write_csv(tmp_path / "t.csv", [row(subject=f"s{number}", ed_frame="1.0", label="0") for number in range(4)])
    whole = (tmp_path / "t.csv").read_text().encode(encoding)
    n_read = n_refused = n_unreadable = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(random.choice((1, 1, 1, 5))):
            place = random.randrange(len(content))
            content[place : place + random.choice((0, 1, 1, 20))] = random.choice(
                (b"", b'"', b"\0", b";,\n", b"\xff\xfe")
            )
        (tmp_path / "t.csv").write_bytes(content)
        try:
            subjects, refused = table.read(tmp_path / "t.csv")
        except CohortError as error:
            assert str(tmp_path / "t.csv") in str(error)
            n_unreadable += 1
        else:
            n_read += len(subjects)
            n_refused += len(refused)
    assert min(n_read, n_refused, n_unreadable) > 0
