"""Whether images are phantoms: what the command line writes on pictures and reports."""

from pathlib import Path

from med_duallora.support.files import read_object

RECIPE_FILE = "phantom.json"
PREPARATION_FILE = "preparation.json"
NOTICE = "synthetic phantoms - not for diagnosis"
MAX_DEPTH = 7


def is_synthetic(path: Path) -> bool:
    """Return whether ``path`` lies in a phantom cohort, or in a cohort prepared from one.

    A phantom cohort has its recipe at its top; ``prepare`` writes ``"synthetic": true`` into its summary.
    """
    here = path.absolute()
    for folder in [here, *here.parents][:MAX_DEPTH]:
        if (folder / RECIPE_FILE).is_file() or _says_synthetic(folder / PREPARATION_FILE):
            return True
    return False


def _says_synthetic(summary: Path) -> bool:
    try:
        return read_object(summary).get("synthetic") is True
    except (OSError, ValueError):
        return False
