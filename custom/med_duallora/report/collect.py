"""Reads what a federation left at the server, and refuses what is missing, damaged or mixed."""

import typing
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from med_duallora.cohorts.origin import CITATIONS, PHANTOMS, Origin
from med_duallora.errors import ArtifactError, ConfigError, shown
from med_duallora.measures import MEASURES, Kind
from med_duallora.report.examples import read_examples
from med_duallora.report.finished import Evaluation, Round, Run, SiteRound
from med_duallora.report.kept_predictions import predictions_beside
from med_duallora.server.artifact import load_adapter
from med_duallora.server.rundir import ADAPTERS, EVALUATION_FILE, JOB_FILE, ROUNDS_FILE
from med_duallora.server.timing import PARTS, TIMES_FILE
from med_duallora.settings.config import JobConfig
from med_duallora.settings.kinds import is_finite_number
from med_duallora.site.kept_calibration import CALIBRATION_FILE, PREDICTIONS_FILE
from med_duallora.support.files import parsed_object, sha256_of_file


def read_run(directory: Path, *, pictures: bool = False) -> Run:
    """Read the run at or below ``directory``: a simulator workspace, a downloaded job or the server's folder itself.

    Args:
        directory: see above.
        pictures: show images of real patients, too, where their cohorts are at hand; those of phantoms always are.

    Raises:
        ArtifactError: no run is there, or more than one; a file is missing, damaged or contradicts another.
    """
    server = find_server_directory(directory)
    record = _object(server / EVALUATION_FILE)
    evaluation, *others = _evaluations(record, str(server / EVALUATION_FILE))
    found = Run(
        directory=server,
        job=_job(server / JOB_FILE),
        job_sha256=sha256_of_file(server / JOB_FILE),
        rounds=_rounds(server / ROUNDS_FILE),
        evaluation=evaluation,
        other_evaluations=tuple(others),
        manifest=load_adapter(server / f"{ADAPTERS[evaluation.model]}.safetensors")[1],
        origin=_origin(record, str(server / EVALUATION_FILE)),
        times=_times(server / TIMES_FILE),
    )
    kept = predictions_beside(directory, found)
    shown = pictures or (found.origin is not None and found.origin.phantoms == "all")
    return replace(found, predictions=kept, examples=read_examples(directory, kept) if shown else {})


def find_server_directory(directory: Path) -> Path:
    """Return the one folder at or below ``directory`` that holds a job and its rounds.

    Raises:
        ArtifactError: there is no such folder, or several.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is not a directory; give the workspace of a run or a downloaded job")
    found = sorted(path.parent for path in directory.rglob(ROUNDS_FILE) if (path.parent / JOB_FILE).is_file())
    if not found:
        raise ArtifactError(
            f"no run below {directory}: no folder there holds both {JOB_FILE} and {ROUNDS_FILE}; a job that ended "
            f"before its first round was averaged leaves none{_sites_below(directory)}"
        )
    if len(found) > 1:
        raise ArtifactError(f"{len(found)} runs below {directory}; choose one: {', '.join(map(str, found))}")
    return found[0]


def _sites_below(directory: Path) -> str:
    """Return what to say where a site's folder was meant."""
    if (directory / PREDICTIONS_FILE).is_file() and not (directory / CALIBRATION_FILE).exists():
        return (
            f". {PREDICTIONS_FILE} alone makes no page: scores of a site that only evaluates are in the server's report"
        )
    runs = [str(path.parent) for path in sorted(directory.rglob(CALIBRATION_FILE))]
    return f". For the page of a site, give its run folder: {' or '.join(runs[:4])}" if runs else ""


def _job(path: Path) -> JobConfig:
    try:
        return JobConfig.from_dict(_object(path))
    except ConfigError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _rounds(path: Path) -> tuple[Round, ...]:
    rounds: list[Round] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        where = f"{path}, line {number}"
        item = _round(_parsed(line, where), where)
        if rounds and item.index <= rounds[-1].index:
            raise ArtifactError(
                f"{where}: round {item.index} follows round {rounds[-1].index}; two runs are mixed here"
            )
        rounds.append(item)
    if not rounds:
        raise ArtifactError(f"{path} holds no round: the run ended before its first aggregation")
    return tuple(rounds)


def _round(record: Mapping[str, Any], where: str) -> Round:
    sites = {
        site: SiteRound(
            metrics=_numbers(_mapping(values, "metrics", f"{where}, {site}"), f"{where}, {site}"),
            payload_bytes=int(_number(values, "payload_bytes", f"{where}, {site}")),
            weight=_number(values, "weight", f"{where}, {site}"),
        )
        for site, values in _mapping(record, "sites", where).items()
    }
    return Round(
        index=int(_number(record, "round", where)),
        seconds=_number(record, "seconds", where),
        sites=sites,
        residual=None if record.get("residual") is None else _number(record, "residual", where),
        tensor_bytes=_positive(record, "tensor_bytes", where),
        refused=_refused(record, where),
        ended=_time(record, where),
        clipped=_limited(record, "clipped", where),
        capped=_limited(record, "capped", where),
    )


def _times(path: Path) -> tuple[Mapping[str, float], ...]:
    """Return the server's clock; it is not a part of the results, so that a run without it is whole."""
    if not path.is_file():
        return ()
    records = [_parsed(line, str(path)) for line in _text(path).splitlines()]
    keep = [{key: value for key, value in record.items() if key in ("round", *PARTS)} for record in records]
    return tuple(_numbers(record, str(path)) for record in keep if set(PARTS) <= set(record))


def _limited(record: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    """Return what the server limited; records of earlier versions do not say it."""
    return _numbers(_mapping(record, key, where), f"{where}, {key}") if key in record else {}


def _refused(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    entries = record.get("refused")
    if not isinstance(entries, list) or not all(
        isinstance(item, dict) and {"site", "reason"} <= set(item) for item in entries
    ):
        raise ArtifactError(f"{where}: refused must be a list of objects with site and reason")
    return tuple(f"{item['site']}: {item['reason']}" for item in entries)


def _evaluations(record: Mapping[str, Any], where: str) -> list[Evaluation]:
    """Return the evaluation that ``model`` names, then the others of ``models``."""
    model = record.get("model")
    if model not in ADAPTERS:
        raise ArtifactError(f"{where}: model = {model!r}, expected {' or '.join(ADAPTERS)}")
    first = _evaluation(model, record, where)
    if not first.sites:
        raise ArtifactError(f"{where} holds no site: nobody evaluated the result")
    others = _mapping(record, "models", where) if "models" in record else {}
    return [first, *(_evaluation(name, others[name], f"{where}, {name}") for name in others if name != model)]


def _evaluation(model: str, record: Any, where: str) -> Evaluation:
    sites = _mapping(record, "sites", where)
    scores = {site: _scores(_mapping(sites, site, where), f"{where}, {site}") for site in sites}
    round_index = None if record.get("round") is None else int(_number(record, "round", where))
    failed = _mapping(record, "failed", where) if "failed" in record else {}
    failures = {site: str(reason) for site, reason in failed.items()}
    return Evaluation(model, round_index, scores, failures, _time(record, where))


def _origin(record: Mapping[str, Any], where: str) -> Origin | None:
    if "origin" not in record:
        return None
    values = _mapping(record, "origin", where)
    phantoms, datasets = values.get("phantoms"), values.get("datasets")
    if phantoms not in PHANTOMS or not isinstance(datasets, list) or not set(map(str, datasets)) <= set(CITATIONS):
        raise ArtifactError(f"{where}: origin = {values!r} does not say where the subjects come from")
    return Origin(phantoms, tuple(datasets))


def _time(record: Mapping[str, Any], where: str) -> datetime | None:
    text = record.get("ended")
    if text is None:
        return None
    try:
        # Python 3.10 does not read the final Z
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError as error:
        raise ArtifactError(f"{where}: ended = {text!r}, expected a time as ISO 8601") from error
    if found.tzinfo is None:
        raise ArtifactError(f"{where}: ended = {text!r} has no time zone")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}; has the run finished?") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def _object(path: Path) -> dict[str, Any]:
    return _parsed(_text(path), str(path))


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return parsed_object(text)
    except ValueError as error:
        raise ArtifactError(f"{where} is damaged: {error}") from error


def _mapping(record: Any, key: str, where: str) -> dict[str, Any]:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, dict):
        raise ArtifactError(f"{where}: {key} must be an object")
    return value


def _number(record: Mapping[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if not is_finite_number(value):
        raise ArtifactError(f"{where}: {key} = {shown(value)}, expected a finite number")
    return typing.cast(float, value)


def _positive(record: Mapping[str, Any], key: str, where: str) -> int:
    value = _number(record, key, where)
    if value <= 0:
        raise ArtifactError(f"{where}: {key} = {value!r}, expected more than 0")
    return int(value)


def _scores(record: Mapping[str, Any], where: str) -> dict[str, float]:
    """Return what a site sent; a value that no site could have sent means that the file is damaged."""
    found = _numbers(record, where)
    for name, value in found.items():
        measure = MEASURES.get(name)
        if measure is None:
            continue
        low, high = measure.limits
        if not low <= value <= high:
            raise ArtifactError(f"{where}: {name} = {value!r}, expected {low:g} to {high:g}")
        if measure.kind is Kind.COUNT and value != int(value):
            raise ArtifactError(f"{where}: {name} = {value!r}, expected a whole number")
    return found


def _numbers(record: Mapping[str, Any], where: str) -> dict[str, float]:
    return {name: _number(record, name, where) for name in record}
