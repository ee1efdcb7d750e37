"""What a terminal shows of a simulated federation: a line per round, and how many are done."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from med_duallora.measures import KEY_MEASURE
from med_duallora.support.progress import Bar, display


@contextmanager
def rounds_shown(n_rounds: int, planned: range) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Give what takes the records of all rounds finished so far, as often as one likes, and shows what is new.

    Args:
        n_rounds: of the whole training.
        planned: the rounds of this job.
    """
    started, n_shown, bar = time.monotonic(), 0, Bar(len(planned))
    with display(sys.stdout) as show:

        def follow(records: Sequence[Mapping[str, Any]]) -> None:
            nonlocal n_shown
            news = [round_line(record, n_rounds) for record in records[n_shown:]]
            n_shown = len(records)
            doing = "training" if n_shown < len(planned) else "evaluating"
            show(
                f"{doing}, {time.monotonic() - started:.0f} s since the start",
                news=news,
                picture=bar.at(n_shown, doing),
            )

        yield follow


def round_line(record: Mapping[str, Any], n_rounds: int) -> str:
    """Return one line on a finished round.

    For example ``round  3/12  val. balanced accuracy ge 0.71  philips 0.65  mean 0.680  2.1 s``: the score of the
    adapters that the round started from.
    """
    scores = {site: values["metrics"].get(KEY_MEASURE) for site, values in record["sites"].items()}
    known = [score for score in scores.values() if score is not None]
    texts = [f"{site} {'-' if score is None else f'{score:.2f}'}" for site, score in scores.items()]
    mean = f"  mean {sum(known) / len(known):.3f}" if known else ""
    head = f"round {record['round'] + 1:>{len(str(n_rounds))}}/{n_rounds}"
    reasons = "; ".join(f"{item['site']}: {item['reason']}" for item in record["refused"])
    refused = f"  refused: {reasons}" if reasons else ""
    return f"{head}  val. balanced accuracy {'  '.join(texts)}{mean}  {record['seconds']:.1f} s{refused}"
