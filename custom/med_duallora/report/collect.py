"""Reads what a federation left at the server, and refuses what is missing, damaged or mixed."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.artifact import load_adapter
from med_duallora.config import JobConfig
from med_duallora.errors import ArtifactError, ConfigError
from med_duallora.files import parsed_json, sha256_of_file
from med_duallora.model import VARIANTS as ADAPTER_VARIANTS
from med_duallora.settings import is_finite_number, shown

JOB, ROUNDS, EVALUATION = "job.json", "round_metrics.jsonl", "evaluation.json"
MODELS = ("best", "last")
VARIANTS = ("backbone", *ADAPTER_VARIANTS)
"""What a site evaluates, from no adapter to both; the order of every table."""


@dataclass(frozen=True)
class SiteRound:
    """One site's part of a round.

    Args:
        metrics: the agreed metrics that the site sent, e.g. ``train_loss``, ``seconds``.
        payload_bytes: serialised size of what the site sent.
        weight: its weight in the aggregation.
    """

    metrics: Mapping[str, float]
    payload_bytes: int
    weight: float


@dataclass(frozen=True)
class Round:
    """One round as the server saw it.

    Args:
        index: from 0, as FLARE counts; people are shown ``number``.
        seconds: from sending the tasks to the aggregated adapter.
        sites: who contributed.
        residual: relative norm of what averaging the factors lost; None where nobody contributed.
        floor_bytes: number of sent values times the size of one.
        refused: what the server did not take, one text each.
    """

    index: int
    seconds: float
    sites: Mapping[str, SiteRound]
    residual: float | None
    floor_bytes: int
    refused: tuple[str, ...]

    @property
    def number(self) -> int:
        """Return the round counted from 1."""
        return self.index + 1


@dataclass(frozen=True)
class Evaluation:
    """The sites' test scores of one global adapter.

    Args:
        model: which one: ``best`` or ``last``.
        round_index: the round whose aggregation gave it; None where the file does not say.
        sites: by site, then ``<variant>.<metric>`` or a count.
        failed: sites that could not evaluate it, with the reason.
    """

    model: str
    round_index: int | None
    sites: Mapping[str, Mapping[str, float]]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """Everything a report shows.

    Args:
        directory: where the server's files lie.
        job: the job configuration.
        job_sha256: hash of ``job.json``.
        rounds: in order.
        evaluation: of the adapter that the report is about.
        other_evaluations: of other adapters of the same run.
        manifest: what the evaluated adapter's manifest says.
        synthetic: whether every subject is a phantom.
    """

    directory: Path
    job: JobConfig
    job_sha256: str
    rounds: tuple[Round, ...]
    evaluation: Evaluation
    other_evaluations: tuple[Evaluation, ...]
    manifest: Mapping[str, Any]
    synthetic: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Return every site that was evaluated or contributed, evaluated ones first."""
        contributed = {site for item in self.rounds for site in item.sites}
        return (*self.evaluation.sites, *sorted(contributed - set(self.evaluation.sites)))


def read_run(directory: Path) -> Run:
    """Read the run at or below ``directory``: a simulator workspace, a downloaded job or the server's folder itself.

    Raises:
        ArtifactError: no run is there, or more than one; a file is missing, damaged or contradicts another.
    """
    server = find_server_directory(directory)
    record = _object(server / EVALUATION)
    evaluation, *others = _evaluations(record, str(server / EVALUATION))
    return Run(
        directory=server,
        job=_job(server / JOB),
        job_sha256=sha256_of_file(server / JOB),
        rounds=_rounds(server / ROUNDS),
        evaluation=evaluation,
        other_evaluations=tuple(others),
        manifest=load_adapter(server / f"adapter_{evaluation.model}.safetensors")[1],
        synthetic=record.get("synthetic") is True,
    )


def find_server_directory(directory: Path) -> Path:
    """Return the one folder at or below ``directory`` that holds a job and its rounds.

    Raises:
        ArtifactError: there is no such folder, or several.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is no directory; give the workspace of a run or a downloaded job")
    found = sorted(path.parent for path in directory.rglob(ROUNDS) if (path.parent / JOB).is_file())
    if not found:
        raise ArtifactError(
            f"no run below {directory}: no folder there holds both {JOB} and {ROUNDS}; a job that ended before its "
            "first round was averaged leaves none"
        )
    if len(found) > 1:
        raise ArtifactError(f"{len(found)} runs below {directory}; choose one: {', '.join(map(str, found))}")
    return found[0]


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
        floor_bytes=_positive(record, "floor_bytes", where),
        refused=_refused(record, where),
    )


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
    if model not in MODELS:
        raise ArtifactError(f"{where}: model = {model!r}, expected {' or '.join(MODELS)}")
    first = _evaluation(model, record, where)
    if not first.sites:
        raise ArtifactError(f"{where} holds no site: nobody evaluated the result")
    others = _mapping(record, "models", where) if "models" in record else {}
    return [first, *(_evaluation(name, others[name], f"{where}, {name}") for name in others if name != model)]


def _evaluation(model: str, record: Any, where: str) -> Evaluation:
    sites = _mapping(record, "sites", where)
    scores = {site: _numbers(_mapping(sites, site, where), f"{where}, {site}") for site in sites}
    round_index = None if record.get("round") is None else int(_number(record, "round", where))
    failed = _mapping(record, "failed", where) if "failed" in record else {}
    return Evaluation(model, round_index, scores, {site: str(reason) for site, reason in failed.items()})


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
        value = parsed_json(text)
    except ValueError as error:
        raise ArtifactError(f"{where} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} must hold one JSON object, not {type(value).__name__}")
    return value


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


def _numbers(record: Mapping[str, Any], where: str) -> dict[str, float]:
    return {name: _number(record, name, where) for name in record}
