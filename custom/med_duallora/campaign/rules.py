"""What a campaign was asked for, and how long it waits for what."""

from dataclasses import dataclass

CONFIRM_S = 5.0
"""What is asked twice must be answered alike this long apart: FLARE 2.9 calls jobs ended that are not, and running
that are not."""
GRACE_S = 30.0
"""A site that has no process of the job yet, this soon after the job's start, may still be starting it."""
AGAIN_S = 30.0
"""After which an abort is asked for again."""
COLLECT_S = 5.0
"""Between two tries to fetch what a job left."""
COPIED_S = 20.0
"""How long an archive is waited for whose rounds are here already, or that FLARE says is there."""
ARCHIVE_S = 720.0
"""How long an archive is waited for else: FLARE 2.9 waits 600 s, and one minute more, for a site that vanished."""
BACK_OFF_S = 5.0
"""Wait after a job that left nothing; twice as long after each further one."""
LONGEST_BACK_OFF_S = 300.0


@dataclass(frozen=True)
class Rules:
    """What a campaign was asked for.

    Args:
        n_rounds: of the whole training.
        min_sites: how many sites a round needs.
        patience_s: how long a missing site is waited for while enough others are there.
        max_attempts: after so many jobs in a row without a new round it gives up.
        give_up_s: after so long without a server, or with too few sites, it gives up.
    """

    n_rounds: int
    min_sites: int
    patience_s: float
    max_attempts: int
    give_up_s: float
