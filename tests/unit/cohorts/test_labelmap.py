from pathlib import Path

import pytest

from med_duallora.cohorts.labelmap import read_label_map
from med_duallora.cohorts.vocabulary import STANDARD
from med_duallora.errors import InputError, SubjectRefused


def write(folder: Path, rows: str, header: str = "kind,text,name,label") -> Path:
    path = folder / "words.csv"
    path.write_text(f"{header}\n{rows}\n", encoding="utf-8")
    return path


def test_a_site_adds_its_own_words(tmp_path: Path) -> None:
    rows = ("pathology,ohne Befund,NOR,0", "pathology,HFpEF,HFPEF,1", "Pathology,Heart failure,hfpef,1")
    words = read_label_map(write(tmp_path, "\n".join((*rows, "vendor,Hitachi Ltd.,other,"))))
    assert words.pathology("Ohne  Befund") == "NOR"
    assert words.pathology("hfpef") == "HFPEF"
    assert words.pathology("heart failure") == "HFPEF"  # the file comes before the standard words
    assert words.pathology("Normal") == "NOR"
    assert words.vendor("HITACHI") == "other"
    assert words.added() == {
        "pathology": {"ohne befund": "NOR", "hfpef": "HFPEF", "heart failure": "HFPEF"},
        "vendor": {"hitachi": "other"},
    }
    with pytest.raises(SubjectRefused, match="HFPEF"):  # what is known includes the new name
        words.pathology("HFrEF")
    with pytest.raises(SubjectRefused):
        STANDARD.pathology("HFpEF")  # of this run only


def test_the_column_label_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "pathology;Kontrolle;NOR", header="Kind;Text;Name")
    assert read_label_map(path).pathology("kontrolle") == "NOR"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("disease,HFpEF,HFPEF,1", "kind is 'disease'"),
        ("pathology,,HCM,", "text is ''"),
        ("pathology,NA,HCM,", "text is 'NA'"),
        ("pathology,x,,1", "name is ''"),
        ("pathology,x,heart failure,1", "name is 'heart failure'"),
        ("pathology,x,../x,1", "name is '../x'"),
        ("pathology,x,HMC,", "name 'HMC' is none of NOR"),  # a slip of the pen makes no class
        ("pathology,x,VOLUNTEER,0", "for normal subjects the name NOR"),
        ("pathology,x,HCM,0", "label 0 contradicts name HCM"),
        ("pathology,x,NOR,1", "label 1 contradicts name NOR"),
        ("pathology,x,NOR,yes", "label is 'yes'"),
        ("pathology,nor,HCM,1", "'nor' is itself a canonical name"),
        ("vendor,Hitachi,hitachi,", "vendors are siemens"),
        ("vendor,Medical Systems,other,", "no vendor is named"),
        ("vendor,Philips,siemens,", "'Philips' is itself a canonical name"),
        ("pathology,Y,HCM,", "another meaning in a row above, DCM"),
        ("pathology,x", "2 values"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: str, named: str) -> None:
    path = write(tmp_path, f"pathology,y,DCM,\n{row}")
    with pytest.raises(InputError, match=named) as error:
        read_label_map(path)
    assert f"{path}, row 3" in str(error.value)
    assert error.value.exit_code == 2


def test_an_empty_file_or_one_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no row"):
        read_label_map(write(tmp_path, ""))
    with pytest.raises(InputError, match="column 'name'"):
        read_label_map(write(tmp_path, "pathology,x", header="kind,text"))
    with pytest.raises(InputError, match="does not exist"):
        read_label_map(tmp_path / "absent.csv")
