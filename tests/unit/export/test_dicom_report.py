"""A prediction as a DICOM structured report, read back by pydicom and by highdicom."""

import stat
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from med_duallora import __version__
from med_duallora.errors import CohortError, InputError, SubjectRefused
from med_duallora.export import dicom_report
from med_duallora.export.dicom_report import STATEMENT, Finding, cine_headers, write_report
from tests.conftest import Listener
from tests.unit.cohorts.dicomfiles import SECRETS, SHAPE, write_study

MODEL = ("backbone=cinema-tiny", "adapter_sha256=" + "a" * 64)
FINDING = Finding(0.8125, 0.6, ("the slices are thicker than those of the training subjects",))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return folder


@pytest.fixture
def written(study: Path, tmp_path: Path) -> Path:
    path = tmp_path / "report.dcm"
    write_report(path, FINDING, cine_headers(study), MODEL)
    return path


def texts(item: Dataset) -> list[str]:
    """Every text of a report's content tree."""
    found = [str(item.TextValue)] if "TextValue" in item else []
    for child in item.get("ContentSequence", []):
        found += texts(child)
    return found


def test_pydicom_reads_who_what_and_that_nobody_verified_it(written: Path, study: Path) -> None:
    report = dcmread(written)
    assert report.Modality == "SR"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert report.ContentQualification == "RESEARCH"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert str(report.PatientID) == SECRETS["PatientID"]
    assert report.StudyInstanceUID == cine_headers(study)[0].StudyInstanceUID
    assert STATEMENT in texts(report)
    assert FINDING.remarks[0] in texts(report)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_highdicom_reads_the_algorithm_and_the_probability(written: Path) -> None:
    from highdicom import sr

    report: Any = sr.srread(written)
    (group,) = report.content.get_image_measurement_groups()
    (measured,) = group.get_measurements()
    assert measured.name.meaning == "Probability"
    assert float(measured.value) == 0.8125
    assert measured.unit.value == "1"
    assert group.finding_type.meaning.lower() == "heart disease"
    calls = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert calls["Call at the threshold"] == "disease"
    assert calls["Intended use"] == "Research use only, not for diagnosis."
    said = texts(dcmread(written))
    for text in ("Med-DualLoRA", __version__, *MODEL, "threshold=0.6"):
        assert text in said


def test_it_refers_to_every_picture_of_the_cine(written: Path) -> None:
    report = dcmread(written)
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    references = [item for series in evidence.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    assert len({item.ReferencedSOPInstanceUID for item in references}) == SHAPE[2] * SHAPE[3]


@pytest.mark.parametrize(("probability", "called"), [(0.59, "no disease"), (0.6, "disease")])
def test_the_call_is_that_of_the_threshold(study: Path, tmp_path: Path, probability: float, called: str) -> None:
    from highdicom import sr

    write_report(tmp_path / "r.dcm", Finding(probability, 0.6), cine_headers(study)[:1], MODEL)
    report: Any = sr.srread(tmp_path / "r.dcm")
    (group,) = report.content.get_image_measurement_groups()
    assert called in [item.value.meaning for item in group.get_qualitative_evaluations()]


def test_anonymised_headers_give_a_report_with_empty_names(tmp_path: Path) -> None:
    def anonymise(dataset: Dataset, k: int, t: int) -> Dataset:
        for name in (*SECRETS, "StudyTime"):
            if name in dataset:
                delattr(dataset, name)
        return dataset

    write_study(tmp_path / "study", anonymise)
    write_report(tmp_path / "r.dcm", FINDING, cine_headers(tmp_path / "study"), MODEL)
    assert str(dcmread(tmp_path / "r.dcm").PatientName) == ""


@pytest.mark.parametrize("text", ["00000000", "19370231", "1937-11-03", "Zebrowski"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_a_date_that_is_none_stays_empty(study: Path, tmp_path: Path, text: str) -> None:
    images = cine_headers(study)[:1]
    images[0].PatientBirthDate = images[0].StudyDate = text
    write_report(tmp_path / "r.dcm", FINDING, images, MODEL)
    report = dcmread(tmp_path / "r.dcm")
    assert (report.PatientBirthDate, report.StudyDate) == ("", "")


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_without_identifiers_there_is_no_report(study: Path, tmp_path: Path, name: str) -> None:
    images = cine_headers(study)[:3]
    for image in images:
        image.PatientName = "Zebrowski^^^^^^^Quirina"
        delattr(image, name)
    with pytest.raises(InputError, match="do not allow a report") as caught:
        write_report(tmp_path / "r.dcm", FINDING, images, MODEL)
    assert "Zebrowski" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_highdicom_would_log_is_not_logged(study: Path, tmp_path: Path) -> None:
    import logging

    listener = Listener(logging.DEBUG)
    logging.getLogger().addHandler(listener)
    try:
        images = cine_headers(study)[:2]
        for image in images:
            image.PatientName = "Zebrowski Quirina"
        write_report(tmp_path / "r.dcm", FINDING, images, MODEL)
    finally:
        logging.getLogger().removeHandler(listener)
    assert not [text for text in listener.texts if "Zebrowski" in text]


def test_one_study_with_a_short_axis_cine_is_needed(study: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "a", seed=1)
    write_study(tmp_path / "b", seed=2)
    with pytest.raises(CohortError, match="holds 2 DICOM studies"):
        cine_headers(tmp_path)
    with pytest.raises(CohortError):
        cine_headers(tmp_path / "nowhere")
    write_study(tmp_path / "c", lambda dataset, k, _: dataset if k == 0 else None)
    with pytest.raises(SubjectRefused, match="no-cine"):
        cine_headers(tmp_path / "c")


def test_without_highdicom_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(InputError, match=r"med-duallora\[dicom\]"):
        dicom_report.need_highdicom()


def test_a_full_disk_leaves_nothing(study: Path, tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match="File too large"):
        write_report(tmp_path / "r.dcm", FINDING, cine_headers(study), MODEL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_not_a_probability_is_refused(probability: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Finding(probability)


def test_a_real_study(shared: Path, tmp_path: Path) -> None:
    from highdicom import sr

    folder = shared / "real_cmr" / "dicom" / "SCD0000301"
    if not folder.is_dir():
        pytest.skip("no real DICOM study is beside the repository")
    images = cine_headers(folder)
    assert len(images) == 200
    write_report(tmp_path / "r.dcm", FINDING, images, MODEL)
    assert sr.srread(tmp_path / "r.dcm").VerificationFlag == "UNVERIFIED"
