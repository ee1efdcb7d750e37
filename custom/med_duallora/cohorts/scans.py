"""One raw scan without a diagnosis, as the preparation wants it: a pair of NIfTI files, a cine, a DICOM study."""

from pathlib import Path

from med_duallora.cohorts.dicom.phases import frames_of
from med_duallora.cohorts.dicom.reader import dicom_scan
from med_duallora.cohorts.dicom.remarks import frames_remark
from med_duallora.cohorts.nifti import read_nifti
from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.errors import SubjectRefused

DATASET = "scan"
TWO_FILES = "give ED and ES as two files"


def raw_scan(path: Path, es: Path | None, folder: Path) -> RawSubject:
    """Describe a scan; of a cine, ED and ES are found by the rule that ``prepare`` uses for DICOM.

    Args:
        path: NIfTI file of ED, 4-D NIfTI file with all frames, or folder of a DICOM study.
        es: NIfTI file of ES; None where ``path`` holds it.
        folder: for temporary files that the subject may speak of; it is the caller's.

    Raises:
        InputError: the folder cannot be read as one DICOM study.
        SubjectRefused: a file is missing or damaged, it is one frame only, or the frames do not differ.
    """
    if path.is_dir():
        return dicom_scan(path, folder)
    if es is not None:
        return _subject(ImageSource(path), ImageSource(es))
    image = read_nifti(path)
    if image.data.ndim == 3:
        raise SubjectRefused("wrong-dimensions", f"{path} is one frame, but ED and ES are needed; {TWO_FILES}")
    ed, es_frame = frames_of(image.data, image.spacing, TWO_FILES)
    remark = frames_remark(ed, es_frame, image.n_frames)
    return _subject(ImageSource(path, ed), ImageSource(path, es_frame), ImageSource(path), (remark,))


def _subject(
    ed: ImageSource, es: ImageSource, cine: ImageSource | None = None, remarks: tuple[str, ...] = ()
) -> RawSubject:
    if ed == es:
        raise SubjectRefused("unlabelled", f"ED and ES are the same image, {ed.path}")
    return RawSubject(
        subject=DATASET,
        dataset=DATASET,
        pathology="",
        vendor="",
        centre="",
        ed=ed,
        es=es,
        cine=cine,
        frames="automatic" if remarks else "given",
        remarks=remarks,
    )
