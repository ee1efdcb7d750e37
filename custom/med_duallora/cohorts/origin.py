"""Where the subjects of prepared cohorts come from: phantoms or people, and which published data sets to cite."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.cohorts.provenance import is_synthetic

CITATIONS = {
    "acdc": "O. Bernard et al., Deep learning techniques for automatic MRI cardiac multi-structures segmentation and "
    "diagnosis: is the problem solved?, IEEE TMI 37(11), 2018, doi:10.1109/TMI.2018.2837502",
    "mnms": "V. M. Campello et al., Multi-centre, multi-vendor and multi-disease cardiac segmentation: the M&Ms "
    "challenge, IEEE TMI 40(12), 2021, doi:10.1109/TMI.2021.3090082",
    "mnms2": "C. Martin-Isla et al., Deep learning segmentation of the right ventricle in cardiac MRI: the M&Ms "
    "challenge, IEEE JBHI 27(7), 2023, doi:10.1109/JBHI.2023.3267857",
}
"""What the makers of a data set ask its users to cite, by the data set's name in cohort.csv."""

PHANTOMS = ("all", "some", "none")


@dataclass(frozen=True)
class Origin:
    """Where the subjects of one or several cohorts come from.

    Args:
        phantoms: ``all``, ``some`` or ``none`` of the cohorts hold synthetic phantoms.
        datasets: published data sets among the cohorts of real patients, keys of ``CITATIONS``, in its order.
    """

    phantoms: str
    datasets: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"phantoms": self.phantoms, "datasets": list(self.datasets)}


def origin_of(cohorts: Iterable[Path]) -> Origin:
    """Return where the subjects below these prepared cohorts come from.

    A phantom may be written in a data set's layout; its cohort names the layout, but cites nobody.

    Raises:
        CohortError: one of them is not a prepared cohort.
    """
    synthetic = {folder: is_synthetic(folder) for folder in cohorts}
    real = [PreparedCohort.read(folder) for folder, phantom in synthetic.items() if not phantom]
    named = {subject.dataset for cohort in real for subject in cohort.subjects}
    n_phantoms = sum(synthetic.values())
    phantoms = "none" if not n_phantoms else "all" if n_phantoms == len(synthetic) else "some"
    return Origin(phantoms, tuple(name for name in CITATIONS if name in named))
