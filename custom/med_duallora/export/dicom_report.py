"""One prediction as a DICOM structured report (TID 1500), written by highdicom, for the site's own archive.

The report belongs to the examination that was classified: it carries the patient's identity and refers to the pictures,
as every DICOM object of a study does. It is marked as preliminary and unverified, says which algorithm spoke, and that
this is research. What a header holds is never quoted in a message or a log.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora import __version__
from med_duallora.cohorts.dicom.headers import discreet
from med_duallora.cohorts.dicom.stack import short_axis
from med_duallora.cohorts.dicom.studies import find_studies
from med_duallora.errors import CohortError, InputError
from med_duallora.support.files import atomic_path

STATEMENT = "Research use only, not for diagnosis. Computed by software and not verified by any person."
ALGORITHM = "Med-DualLoRA"
SCHEME, SCHEME_NAME = "99MEDDUALLORA", "Med-DualLoRA's own codes"
NEEDED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime"),
)
"""What a report must copy from a picture's header; where a header was anonymised, it stays empty."""
MOMENTS = {"PatientBirthDate": r"\d{8}", "StudyDate": r"\d{8}", "StudyTime": r"\d{2,6}(\.\d{1,6})?"}
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
SEXES = ("M", "F", "O")
SERIES_NUMBER = 9001
"""High, so that no series of the scanner has it."""
NO_REPORT = "the headers of the DICOM pictures do not allow a report"


@dataclass(frozen=True)
class Finding:
    """One prediction, without the name of its subject.

    Args:
        probability: of disease, 0 to 1.
        threshold: from which on the site calls it disease.
        remarks: what speaks against trusting it, one sentence each.
    """

    probability: float
    threshold: float = 0.5
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("probability", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)!r}, but it must be between 0 and 1")


def cine_headers(folder: Path) -> list[Any]:
    """Return the headers of the short-axis cine in a folder of one study, the pictures that a report refers to.

    Raises:
        InputError: pydicom is not installed.
        CohortError: there is no DICOM picture, or more than one study.
        SubjectRefused: the study holds no short-axis cine.
    """
    studies = find_studies(folder).studies
    if len(studies) != 1:
        raise CohortError(f"{folder} holds {len(studies)} DICOM studies; a report is about one, give its folder")
    pictures = [picture for item in short_axis(studies[0].pictures) for picture in item.pictures]
    import pydicom

    with discreet():
        return [pydicom.dcmread(picture.path, stop_before_pixels=True) for picture in pictures]


def write_report(path: Path, finding: Finding, images: Sequence[Any], model: Sequence[str]) -> None:
    """Write the structured report of one prediction, readable by this account alone.

    Args:
        path: of the DICOM file.
        finding: the prediction.
        images: headers of the pictures that it was made from, of one study.
        model: which model spoke, a ``name=value`` each; a part of the algorithm's identification.

    Raises:
        InputError: highdicom is not installed, or the pictures' headers do not allow a report.
        OSError: the place cannot be written; nothing is left there.
    """
    need_highdicom()
    with quiet():
        try:
            report = _report(finding, [_completed(image) for image in images], model)
        except ValueError as error:  # its text may quote a header
            raise InputError(f"{NO_REPORT}: a name, date or code in them is not in DICOM's form") from error
        with atomic_path(path, mode=0o600) as partial:
            report.save_as(partial, enforce_file_format=True)


def need_highdicom() -> Any:
    """Return the module highdicom; InputError with what to install where it is missing."""
    try:
        import highdicom
    except ImportError as error:
        raise InputError('a DICOM report needs the package highdicom: pip install "med-duallora[dicom]"') from error
    return highdicom


@contextmanager
def quiet() -> Iterator[None]:
    """Keep highdicom's and pydicom's warnings and log records, which may quote a header, from being shown.

    A report must repeat identifiers as the archive has them, also where they break a rule of DICOM that pydicom would
    enforce on what it writes (such as a leading zero in a part of one).
    """
    from pydicom import config

    logger = logging.getLogger("highdicom")
    level, mode = logger.level, config.settings.writing_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    config.settings.writing_validation_mode = config.WARN
    try:
        with discreet():
            yield
    finally:
        logger.setLevel(level)
        config.settings.writing_validation_mode = mode


def _completed(image: Any) -> Any:
    """Return a header that has every element a report copies, be it empty (InputError: an identifier is missing)."""
    missing = [name for name in IDENTIFIERS if not str(image.get(name, ""))]
    if missing:
        raise InputError(f"{NO_REPORT}: a picture has no {missing[0]}; ask who exported the study")
    for name in NEEDED:
        if name not in image:
            setattr(image, name, "")
    if image.PatientSex not in SEXES:
        image.PatientSex = ""
    for name, form in MOMENTS.items():
        if not re.fullmatch(form, str(image.get(name) or "")) or not _is_moment(name, str(image[name].value)):
            setattr(image, name, "")  # an anonymised one is 00000000, say
    return image


def _is_moment(name: str, text: str) -> bool:
    from pydicom.valuerep import DA, TM

    try:
        (DA if name.endswith("Date") else TM)(text)
    except ValueError:
        return False
    return True


def _report(finding: Finding, images: Sequence[Any], model: Sequence[str]) -> Any:
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(model)),
        procedure_reported=codes.SCT.MagneticResonanceImagingOfHeart,
        imaging_measurements=[_group(finding, images, model)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.ComprehensiveSR(
        evidence=images,
        content=content[0],
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=__version__,
        series_description="Research use only, not for diagnosis",
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_qualification=highdicom.ContentQualificationValues.RESEARCH,
        coding_schemes=[highdicom.coding_schemes.CodingSchemeIdentificationItem(designator=SCHEME, name=SCHEME_NAME)],
    )


def _observer(model: Sequence[str]) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    uid = generate_uid(entropy_srcs=[ALGORITHM, __version__, *model])
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid, name=ALGORITHM, manufacturer_name=ALGORITHM, model_name=ALGORITHM, serial_number=__version__
        ),
    )


def _group(finding: Finding, images: Sequence[Any], model: Sequence[str]) -> Any:
    """Return the measurement group: what was found where, by which algorithm, from which pictures."""
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    algorithm = sr.AlgorithmIdentification(
        name=ALGORITHM,
        version=__version__,
        parameters=[*model, f"threshold={finding.threshold:g}"],
        family=codes.DCM.ArtificialIntelligence,
    )
    called = "disease" if finding.probability >= finding.threshold else "no disease"
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"{ALGORITHM} prediction"),
        finding_type=codes.SCT.HeartDisease,
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Heart)],
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(name=codes.DCM.Probability, value=finding.probability, unit=codes.UCUM.NoUnits),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_own("call", "Call at the threshold"), _own(called.replace(" ", "-"), called)),
            sr.QualitativeEvaluation(_own("use", "Intended use"), _own("research", STATEMENT[:37])),
        ],
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(image) for image in images],
    )
    for text in (STATEMENT, *finding.remarks):
        group[0].ContentSequence.append(
            sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _own(value: str, meaning: str) -> Any:
    from highdicom import sr

    return sr.CodedConcept(value=value, scheme_designator=SCHEME, meaning=meaning)
