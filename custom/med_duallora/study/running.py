"""Does one run and writes its record: whole or not at all, readable by this account only, because it names subjects."""

import platform
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

import med_duallora
from med_duallora.study.plan import RunSpec
from med_duallora.study.ways import WAYS, Outcome, Place, place_of
from med_duallora.support.files import sha256_of_file, sha256_of_json, write_json
from med_duallora.support.private import PRIVATE_FILE

PACKAGE = Path(med_duallora.__file__).parent


def run_one(spec: RunSpec) -> Path:
    """Do a run and return the file of its record.

    Raises:
        MedDualLoRAError: what the run raises; nothing was written.
        OSError: the record cannot be written.
    """
    started = time.monotonic(), time.process_time()
    with threadpool_limits(limits=1), place_of(spec) as place:  # another number of threads rounds otherwise
        outcome = WAYS[spec.arm.way](place)
        took = time.monotonic() - started[0], time.process_time() - started[1]
        record = _record(spec, place, outcome, took)
    write_json(spec.path, record, PRIVATE_FILE)
    return spec.path


def _record(spec: RunSpec, place: Place, outcome: Outcome, took: tuple[float, float]) -> dict[str, Any]:
    return {
        "not_for_diagnosis": True,
        "synthetic": spec.cohort.is_synthetic,
        "cohort": spec.cohort.name,
        "arm": spec.arm.name,
        "recipe": spec.recipe,
        "seed": spec.seed,
        "key": spec.key,
        "decides": spec.decides(),
        "code": code(),
        "seconds": took[0],
        "cpu_seconds": took[1],
        "tensor_bytes": outcome.tensor_bytes,
        "rounds": outcome.rounds,
        "sites": {site: _site(place, outcome, site) for site in place.dealt},
    }


def _site(place: Place, outcome: Outcome, site: str) -> dict[str, Any]:
    test = [row for row in place.dealt[site].rows if row["split"] == "test"]
    subjects = [row["subject"] for row in test]
    return {
        "n_train": len(place.dealt[site].named("train")),
        "subjects": subjects,
        "labels": [int(row["label"]) for row in test],
        "chances": {
            variant: [said[name] for name in subjects] for variant, said in outcome.chances.get(site, {}).items()
        },
        "attribution": outcome.attributions.get(site, {}),
    }


@cache
def code() -> dict[str, str]:
    """Return which code this is: version, a hash of the package's files, the checkout's revision where there is one."""
    files = {str(path.relative_to(PACKAGE)): sha256_of_file(path) for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        "version": med_duallora.__version__,
        "package_sha256": sha256_of_json(files),
        "revision": _revision(),
        "python": platform.python_version(),
    }


def _revision() -> str:
    """Return the revision of the checkout that the package lies in; empty where there is none."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
