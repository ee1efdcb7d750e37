"""Every number that a run computes and shows, in one table.

A number leaves a site only if it has an entry here, and an entry must say whose subjects the number speaks of. The
egress contract, the site's policy, TensorBoard, the console and the report read the entries and keep no list of their
own: adding a measure is adding its entry. Nothing is decided by a part of a name.
"""

from dataclasses import dataclass
from enum import Enum


class Subjects(Enum):
    """Whose subjects a number speaks of; the value is the split's name."""

    TRAINING = "train"
    VALIDATION = "val"
    TEST = "test"
    NONE = "none"
    """Of work, time or memory, or how many subjects are trained on: nothing about any of them."""


class Kind(Enum):
    """How a number is written."""

    COUNT = "a whole number, never rounded"
    SCORE = "a score, a loss, a time: rounded as the site's policy says"
    ROUND = "a round, counted from 0 and shown from 1; the server gives it, so no policy holds it back"


class Place(Enum):
    """Where a number may stand, and with that who may see it."""

    TRAIN_REPLY = "metrics"
    """The reply to a train task: the server, its TensorBoard and the report."""
    INITIAL = "initial_metrics"
    """The same reply, where it speaks of the incoming global adapter before training."""
    VALIDATE_REPLY = "evaluation"
    """The reply to the validate task after the last round: the server and the report."""
    CONSOLE = "console"
    """A site's answer to ``show_stats``: whoever may ask at the console."""
    SERVER = "server"
    """The server's own summary, in its TensorBoard run and its answer to ``show_stats``; it does not leave a site."""


REPLIES = frozenset({Place.TRAIN_REPLY, Place.INITIAL, Place.VALIDATE_REPLY})


@dataclass(frozen=True)
class Curve:
    """How the report draws a measure over the rounds, one line per site.

    Args:
        picture: name of the file, without its ending.
        caption: what the reader must know.
        chance: value that guessing reaches, drawn dashed; None: no line.
    """

    picture: str
    caption: str
    chance: float | None = None


@dataclass(frozen=True)
class Measure:
    """The entry of one number.

    Args:
        name: by which the code, the files and the payloads call it.
        lowest: a lower value is refused.
        highest: likewise.
        subjects: whose subjects it speaks of; the site's policy compares how many they are with its floor.
        kind: whether it is rounded.
        places: where it may stand.
        heading: what people read.
        tag: under which TensorBoard draws it, the part before the slash groups the curves; empty: not drawn.
        column: heading in the terminal's table of sites; empty: not shown there.
        server_word: what the terminal says before the server's own value; empty: not shown there.
        averaged: whether the server's summary has the mean over the sites that gave it.
        curve: how the report draws it; None: not over the rounds.

    Raises:
        TypeError: it does not say whose subjects it speaks of.
        ValueError: the range is empty.
    """

    name: str
    lowest: float
    highest: float
    subjects: Subjects
    kind: Kind
    places: frozenset[Place]
    heading: str
    tag: str = ""
    column: str = ""
    server_word: str = ""
    averaged: bool = False
    curve: Curve | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.subjects, Subjects):
            raise TypeError(f"measure {self.name} does not say whose subjects it speaks of")
        if not self.lowest <= self.highest:
            raise ValueError(f"measure {self.name} has the empty range [{self.lowest}, {self.highest}]")

    @property
    def limits(self) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        return float(self.lowest), float(self.highest)

    @property
    def is_replied(self) -> bool:
        """Return whether it may stand in a reply to a task."""
        return bool(self.places & REPLIES)

    @property
    def leaves(self) -> bool:
        """Return whether it may leave a site at all."""
        return bool(self.places - {Place.SERVER})


@dataclass(frozen=True)
class Variant:
    """A model that is evaluated on the test split.

    Args:
        heading: what people read.
        short: likewise, where there is little room.
        adapters: whether the global and the local adapter of the trained model are switched on; None: another model.
    """

    heading: str
    short: str
    adapters: tuple[bool, bool] | None


VARIANTS = {
    "backbone": Variant("backbone + head", "backbone", None),
    "alone": Variant("trained alone", "alone", None),
    "global": Variant("global adapter only", "global only", (True, False)),
    "local": Variant("local adapter only", "local only", (False, True)),
    "both": Variant("both adapters", "both", (True, True)),
    "chosen": Variant("what the site uses", "chosen", None),
}
"""By name, from no adapter to both: the order of every table. ``backbone`` is frozen, with a head fitted to the site's
training subjects; ``alone`` is a training of the site by itself, see ``site.alone``; ``chosen`` is one of them."""
FEDERATED = "both"
"""The variant that a job trains for."""
CHOICES = (FEDERATED, "global", "alone", "backbone")
"""What a site may use, see ``site.choice``; a place in this list leaves it as ``choice``."""


@dataclass(frozen=True)
class Score:
    """A score of a classification; an evaluation has one of every variant.

    Args:
        heading: what people read.
        meaning: in the report's glossary.
        lowest: see ``Measure``.
        highest: likewise.
        in_report: whether the report has a table of it.
        leading: whether it also stands where there is room for a few scores only.
        note: below its table.
    """

    heading: str
    meaning: str
    lowest: float = 0.0
    highest: float = 1.0
    in_report: bool = True
    leading: bool = False
    note: str = ""


SCORES = {
    "balanced_accuracy": Score("balanced accuracy", "mean of sensitivity and specificity; 0.5 is chance", leading=True),
    "sensitivity": Score("sensitivity", "share of diseased subjects that were found"),
    "specificity": Score("specificity", "share of normal (NOR) subjects that were recognised"),
    "auroc": Score(
        "AUROC",
        "chance that a subject with disease scores above a normal one; it needs no threshold",
        leading=True,
        note="No pooled AUROC: predictions never leave a site.",
    ),
    "mcc": Score("MCC", "correlation of prediction and truth; 0 is chance", lowest=-1.0, in_report=False),
}  # fmt: skip
"""By name; ``site.scores`` computes them."""


def score_name(variant: str, score: str) -> str:
    """Return the name of a variant's score."""
    return f"{variant}.{score}"


TRAINED = frozenset({Place.TRAIN_REPLY, Place.CONSOLE})
INCOMING = frozenset({Place.INITIAL, Place.CONSOLE})
EVALUATED = frozenset({Place.VALIDATE_REPLY, Place.CONSOLE})
ASKED = frozenset({Place.CONSOLE})
SUMMARY = frozenset({Place.SERVER})


def evaluated(variant: str, score: str) -> Measure:
    """Return the entry of a variant's score."""
    about = SCORES[score]
    heading = f"test {about.heading}, {VARIANTS[variant].heading}"
    name, tag = score_name(variant, score), f"test/{variant}/{score}"
    return Measure(name, about.lowest, about.highest, Subjects.TEST, Kind.SCORE, EVALUATED, heading, tag=tag)


# fmt: off
_ENTRIES = (
    Measure("round", 0, 1e6, Subjects.NONE, Kind.ROUND, ASKED | SUMMARY, "round",
            column="round", server_word="round"),
    Measure("train_loss", 0, 1e4, Subjects.TRAINING, Kind.SCORE, TRAINED | SUMMARY, "training loss",
            tag="train/loss", column="loss", averaged=True, curve=Curve("loss", "Mean training loss of a round.")),
    Measure("val_loss", 0, 1e4, Subjects.VALIDATION, Kind.SCORE, INCOMING | SUMMARY, "validation loss",
            tag="validation/loss", averaged=True),
    Measure("val_balanced_accuracy", 0, 1, Subjects.VALIDATION, Kind.SCORE, INCOMING | SUMMARY,
            "validation balanced accuracy", tag="validation/balanced_accuracy", column="bal. accuracy",
            server_word="mean bal. accuracy", averaged=True,
            curve=Curve("accuracy", "The global adapter that came in, with the site's own local adapter, scored before "
                        "the round's training (dashed: chance).", chance=0.5)),
    # it equals the weight: a site whose training subjects are too few to be counted takes no part at all
    Measure("n_subjects", 0, 1e9, Subjects.NONE, Kind.COUNT, TRAINED, "training subjects",
            tag="train/subjects", column="subjects"),
    Measure("n_steps", 0, 1e9, Subjects.NONE, Kind.COUNT, TRAINED, "optimizer steps", tag="train/steps",
            column="steps"),
    Measure("steps_per_second", 0, 1e9, Subjects.NONE, Kind.SCORE, ASKED, "optimizer steps per second",
            column="steps/s"),
    Measure("seconds", 0, 1e7, Subjects.NONE, Kind.SCORE, TRAINED | SUMMARY, "seconds of a round",
            tag="round/seconds", column="s per round"),
    Measure("peak_memory_mb", 0, 1e9, Subjects.NONE, Kind.SCORE, ASKED, "highest memory use, MiB", column="peak MiB"),
    Measure("payload_bytes", 0, 1e12, Subjects.NONE, Kind.COUNT, ASKED, "bytes of the payload"),
    Measure("cache_hits", 0, 1e9, Subjects.NONE, Kind.COUNT, TRAINED, "cached features used", tag="cache/hits"),
    Measure("cache_misses", 0, 1e9, Subjects.NONE, Kind.COUNT, TRAINED, "features computed", tag="cache/misses"),
    *(evaluated(variant, score) for variant in VARIANTS for score in SCORES),
    Measure("n_test_subjects", 0, 1e9, Subjects.TEST, Kind.COUNT, EVALUATED, "test subjects", tag="test/subjects"),
    Measure("n_positive", 0, 1e9, Subjects.TEST, Kind.COUNT, EVALUATED, "diseased test subjects",
            tag="test/n_positive"),
    Measure("n_negative", 0, 1e9, Subjects.TEST, Kind.COUNT, EVALUATED, "normal test subjects", tag="test/n_negative"),
    Measure("choice", 0, len(CHOICES) - 1, Subjects.VALIDATION, Kind.COUNT, EVALUATED, "what the site uses",
            tag="test/choice"),
    Measure("joining_helped", 0, 1, Subjects.TEST, Kind.SCORE, EVALUATED, "probability that joining helped",
            tag="test/joining_helped"),
    Measure("n_contributions", 0, 1e9, Subjects.NONE, Kind.COUNT, SUMMARY, "contributions",
            tag="round/contributions", server_word="contributions"),
    Measure("n_refused", 0, 1e9, Subjects.NONE, Kind.COUNT, SUMMARY, "refusals", tag="round/refusals"),
    Measure("n_limited", 0, 1e9, Subjects.NONE, Kind.COUNT, SUMMARY, "contributions that counted for less",
            tag="round/limited"),
    Measure("n_refused_in_all", 0, 1e9, Subjects.NONE, Kind.COUNT, SUMMARY, "refusals in all rounds",
            server_word="refused so far"),
    Measure("payload_bytes_max", 0, 1e12, Subjects.NONE, Kind.COUNT, SUMMARY, "bytes of the largest payload",
            tag="round/payload_bytes_max"),
    Measure("residual", 0, 1e9, Subjects.NONE, Kind.SCORE, SUMMARY, "aggregation residual",
            tag="round/aggregation_residual", server_word="aggregation residual"),
    Measure("best_round", 0, 1e6, Subjects.NONE, Kind.ROUND, SUMMARY, "round of the best adapter",
            server_word="best adapter after round"),
    Measure("start_round", 0, 1e6, Subjects.NONE, Kind.ROUND, SUMMARY, "first round of the job"),
    Measure("n_rounds", 0, 1e6, Subjects.NONE, Kind.COUNT, SUMMARY, "rounds of the whole training"),
)
# fmt: on
MEASURES = {measure.name: measure for measure in _ENTRIES}
"""The table, by name. The order is that of the contract's lists, which its hash covers."""
KEY_MEASURE = "val_balanced_accuracy"
"""By the mean of this over the sites the best adapter is chosen; higher is better."""


@dataclass(frozen=True)
class Statement:
    """What a site may say to the console in words: one of a few, so that nobody can be named.

    Args:
        texts: every allowed one.
        column: see ``Measure``.
        server_word: likewise.
    """

    texts: tuple[str, ...]
    column: str
    server_word: str = ""


STATEMENTS = {
    "phase": Statement(
        ("starting", "not initialised", "waiting", "validation", "training", "evaluation"), "phase", "phase"
    ),
    "device": Statement(("cpu", "cuda", *(f"cuda:{index}" for index in range(16))), "device"),
}
"""By name."""


def standing_in(*places: Place) -> dict[str, Measure]:
    """Return the entries that may stand in any of these places, by name."""
    return {name: measure for name, measure in MEASURES.items() if measure.places.intersection(places)}


def may_stand(name: str, places: frozenset[Place]) -> bool:
    """Return whether a number may stand in any of these places; one without an entry stands nowhere."""
    measure = MEASURES.get(name)
    return measure is not None and bool(measure.places & places)
