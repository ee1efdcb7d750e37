"""What a site was asked to score and what it answered: kept across jobs, so that scores are not without limit.

Every score of an adapter that somebody else chose tells a little of the subjects that it was computed from, and many of
them tell a lot. So a site answers a round of a run from one adapter, evaluates one adapter of each kind per run on its
test split, and its policy says how many answers there are, in one experiment and in all together: whoever names the
experiments shall not get more by a new name.

An answer is counted before anything is computed for it. The same question again gets the same answer and costs nothing.

The record lies in ``state_dir`` (``answers.json``, for the site's account only). The ledger is a second witness: a site
whose record was deleted begins with as many answers as the ledger has lines of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from med_duallora.boundary.ledger_audit import Answered, answered
from med_duallora.errors import EgressViolation, StateError
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.settings.workflow import ADAPTER_KINDS
from med_duallora.support.files import read_object, write_json
from med_duallora.support.locks import locked
from med_duallora.support.private import open_own, private_folder

RECORD_FILE = "answers.json"
FORMAT = 1


@dataclass(frozen=True)
class Question:
    """What somebody asks of a site.

    Args:
        experiment: the job's name for it.
        run: id of the running run, see ``lineage``.
        asked: a round, from 0: its validation scores and its training; or one of ``ADAPTER_KINDS``: test scores.
    """

    experiment: str
    run: str
    asked: int | str

    @property
    def of_test(self) -> bool:
        """Return whether it asks for scores of the test split."""
        return isinstance(self.asked, str)

    def __str__(self) -> str:
        if isinstance(self.asked, str):
            return f"the evaluation of the {self.asked} adapter"
        return f"round {self.asked + 1}"


@dataclass(frozen=True)
class Answer:
    """A question that was counted.

    Args:
        question: that was asked.
        adapter: digest of the global adapter that it was asked of.
        metrics: what was computed; None: nothing yet.
    """

    question: Question
    adapter: str
    metrics: Mapping[str, float] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Answer":
        """Return what ``to_dict`` gave (else KeyError, TypeError or ValueError)."""
        question = Question(values["experiment"], values["run"], values["asked"])
        known = question.asked in ADAPTER_KINDS if question.of_test else type(question.asked) is int
        if not (known and all(type(text) is str for text in (question.experiment, question.run, values["adapter"]))):
            raise ValueError("an answer of another form")
        metrics = values["metrics"]
        return cls(question, values["adapter"], None if metrics is None else _numbers(metrics))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        metrics = None if self.metrics is None else dict(self.metrics)
        return {**asdict(self.question), "adapter": self.adapter, "metrics": metrics}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


@dataclass(frozen=True)
class Spent:
    """How many answers were given.

    Args:
        evaluations: adapters that were scored on the test split, in all experiments together.
        rounds: likewise, rounds.
        evaluations_here: those of one experiment.
        rounds_here: likewise.
    """

    evaluations: int
    rounds: int
    evaluations_here: int = 0
    rounds_here: int = 0


class AnswerBudget:
    """What a site answered, and how much it will still answer; several processes may use the same one.

    Args:
        config: the site scope.
    """

    def __init__(self, config: SiteConfig) -> None:
        self.path = config.state_dir / RECORD_FILE
        self._policy = config.policy
        self._ledger = config.ledger_path
        self._lost: Answered | None = None
        self._seen: frozenset[tuple[Question, str]] = frozenset()

    def claim(self, question: Question, adapter: str) -> dict[str, float] | None:
        """Count a question before anything is computed for it.

        Args:
            question: what is asked.
            adapter: digest of the global adapter that it is asked of.

        Returns:
            The metrics that were answered earlier to the same; None: there are none, so that they are to be computed.

        Raises:
            EgressViolation: it was answered with another adapter, or the policy's number of answers is spent.
            StateError: the record cannot be read or written, or was cut while this process was at work.
        """
        earlier: list[Answer] = []

        def counted(answers: list[Answer]) -> list[Answer]:
            found = next((answer for answer in answers if answer.question == question), None)
            if found is None:
                self._check_spent(question, answers)
                return [*answers, Answer(question, adapter)]
            if found.adapter != adapter:
                raise EgressViolation(f"{question} was already answered with another adapter in this run")
            earlier.append(found)
            return answers

        self._update(counted)
        metrics = earlier[0].metrics if earlier else None
        return None if metrics is None else dict(metrics)

    def keep(self, question: Question, metrics: Mapping[str, float]) -> None:
        """Keep what was computed for a question that was counted; raises StateError: see ``claim``."""

        def answered_now(answers: list[Answer]) -> list[Answer]:
            return [replace(item, metrics=dict(metrics)) if item.question == question else item for item in answers]

        self._update(answered_now)

    def spent(self, experiment: str = "") -> Spent:
        """Return how many answers were given, without writing anything; raises StateError: see ``claim``."""
        return self._spent(self._read(), experiment)

    def _update(self, change: Callable[[list[Answer]], list[Answer]]) -> None:
        try:
            private_folder(self.path.parent)
            with locked(self.path.with_name(f".{RECORD_FILE}.lock")):
                before = self._read()
                if not self._seen <= _claims(before):
                    raise StateError(f"{_RECORD} was replaced or cut while a job was running. {_TODO}")
                after = change(before)
                if after != before:
                    values = {"format": FORMAT, "answers": [answer.to_dict() for answer in after]}
                    write_json(self.path, values, mode=0o600)
                self._seen = _claims(after)
        except OSError as error:
            raise StateError(f"{_RECORD} cannot be written ({error.strerror or error}). {_TODO}") from error

    def _read(self) -> list[Answer]:
        try:
            values = read_object(self.path, open_own)
            if values["format"] != FORMAT:
                raise ValueError("another format")
            return [Answer.from_dict(item) for item in values["answers"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"{_RECORD} cannot be read ({error.strerror or error}). {_TODO}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{_RECORD} is damaged. {_TODO}") from error

    def _spent(self, answers: list[Answer], experiment: str) -> Spent:
        questions = [answer.question for answer in answers]
        tests = [question for question in questions if question.of_test]
        rounds = [question for question in questions if not question.of_test]
        lost = self._lost_answers(len(tests), len(rounds))
        return Spent(
            len(tests) + lost.evaluations,
            len(rounds) + lost.rounds,
            sum(question.experiment == experiment for question in tests),
            sum(question.experiment == experiment for question in rounds),
        )

    def _lost_answers(self, n_tests: int, n_rounds: int) -> Answered:
        """Return how many answers the ledger knows of that the record does not; looked at once per process."""
        if self._lost is None:
            known = answered(self._ledger)
            self._lost = Answered(max(0, known.evaluations - n_tests), max(0, known.rounds - n_rounds))
        return self._lost

    def _check_spent(self, question: Question, answers: list[Answer]) -> None:
        spent = self._spent(answers, question.experiment)
        counts = {
            "max_test_evaluations": spent.evaluations,
            "max_test_evaluations_per_experiment": spent.evaluations_here,
        }
        if not question.of_test:
            counts = {"max_rounds": spent.rounds, "max_rounds_per_experiment": spent.rounds_here}
        for name, count in counts.items():
            limit = limit_of(self._policy, name)
            if count >= limit:
                raise EgressViolation(
                    f"this site does not answer {question}: policy.{name} of the site configuration is {limit}, and "
                    f"{count} were answered. Raise it where this site agrees to more"
                )


_RECORD = f"the record of what this site answered, {RECORD_FILE} in state_dir,"
_TODO = "Nothing is scored without it: put it back, or move it aside, and the ledger tells how much was answered"


def limit_of(policy: SitePolicy, name: str) -> int:
    """Return one of a policy's numbers of answers."""
    return int(getattr(policy, name))


def _claims(answers: list[Answer]) -> frozenset[tuple[Question, str]]:
    return frozenset((answer.question, answer.adapter) for answer in answers)
