from pathlib import Path
from typing import Any

from med_duallora.cohorts.prepare_summary import remark_lines, site_lines, summary_lines
from med_duallora.cohorts.prepare_tables import Preparation, PrepareOptions
from med_duallora.cohorts.site_names import Sites
from med_duallora.cohorts.subject import Refusal


def row(remarks: str = "", split: str = "train", crop_centre: str = "segmentation") -> dict[str, Any]:
    return {"label": 0, "split": split, "crop_centre": crop_centre, "remarks": remarks}


def test_each_kind_of_remark_is_counted_once_per_subject() -> None:
    rows = [row("voxel size from pixdim: 1.4 mm; short stack"), row("voxel size from pixdim: 1.5 mm"), row()]
    both = row("voxel size from pixdim: at ED; voxel size from pixdim: at ES")
    title, *lines = remark_lines(Preparation({}, {"ge": rows, "canon": [both]}))
    assert "column 'remarks' of each cohort.csv" in title
    assert [line.split(maxsplit=1) for line in lines] == [["3", "voxel size from pixdim"], ["1", "short stack"]]
    assert remark_lines(Preparation({}, {"ge": [row()]})) == []


def test_the_summary_has_a_part_for_everything_and_no_empty_one() -> None:
    full = Preparation({"acdc": 2}, {"a-long-site-name": [row("odd", crop_centre="image")]}, notes=["so be it"])
    full.refused = [Refusal("s2", "acdc", "x", "empty-lv", "no LV")]
    text = "\n".join(summary_lines(full, Path("out"), PrepareOptions()))
    for part in ("a-long-site-name  1 ", "1 subject(s) without", "   1 odd", "1 empty-lv", "Note: so be it.", "to out"):
        assert part in text
    assert len(summary_lines(Preparation({"acdc": 0}), Path("out"), PrepareOptions())) == 3


def test_sites_are_explained_where_their_names_do_not_do_it() -> None:
    told = {"siemens": {"vendor": "siemens"}, "oslo-norway": {"centre": "Oslo, Norway"}}
    assert site_lines(Preparation({}, told_by=told), PrepareOptions()) == ["oslo-norway is centre 'Oslo, Norway'"]
    (said,) = site_lines(Preparation({}, {"site-1": [], "site-2": []}), PrepareOptions(sites=Sites(n_simulated=2)))
    assert said.startswith("The 2 sites are simulated")
