"""What a campaign does next: from one look at the federation to at most one order. No clock, no disk, no FLARE."""

import secrets
from collections.abc import Callable, Iterable

from med_duallora.campaign.look import BEING_SENT, NOT_STARTED, Abort, Collect, JobSeen, Look, Order, Submit
from med_duallora.campaign.rules import (
    AGAIN_S,
    ARCHIVE_S,
    BACK_OFF_S,
    COLLECT_S,
    CONFIRM_S,
    COPIED_S,
    GRACE_S,
    LONGEST_BACK_OFF_S,
    Rules,
)
from med_duallora.campaign.state import Campaign, JobDone, Phase
from med_duallora.campaign.timers import Timers

Tell = Callable[..., None]


class Machine:
    """A campaign's decisions.

    ``step`` takes a look and gives an order; whoever carries it out says how it went by ``submitted``, ``kept`` and
    ``collected``. Everything that must survive is in ``campaign``; what is only waited for begins anew after a restart.

    Args:
        campaign: changed in place.
        rules: see ``Rules``.
        tell: takes every event: its kind, a sentence, and facts.
    """

    def __init__(self, campaign: Campaign, rules: Rules, tell: Tell) -> None:
        self.campaign = campaign
        self.rules = rules
        self._tell = tell
        self._timers = Timers()
        self._round_ended = False

    @property
    def over(self) -> bool:
        """Return whether nothing is left to do."""
        return self.campaign.phase in (Phase.DONE, Phase.GAVE_UP)

    @property
    def complete(self) -> bool:
        """Return whether all rounds are kept."""
        return self.campaign.round_index + 1 >= self.rules.n_rounds

    def step(self, look: Look, now: float) -> Order | None:
        """Return what is to be done now; None: wait and look again.

        Args:
            look: the federation at this moment.
            now: seconds of a clock that never goes back.
        """
        ended, self._round_ended = self._round_ended, False
        if not self._server_answers(look, now):
            return None
        self._notice(look)
        phase = self.campaign.phase
        if phase is Phase.GATHERING:
            return self._gather(look, now)
        if phase is Phase.SUBMITTING:
            return self._submit(look)
        if phase is Phase.RUNNING:
            return self._follow(look, now, ended)
        if phase is Phase.STOPPING:
            return self._stop(look, now)
        return self._collect(look, now) if phase is Phase.COLLECTING else None

    def submitted(self, job_id: str) -> None:
        """Say which job a ``Submit`` gave."""
        campaign = self.campaign
        campaign.job_id, campaign.crew, campaign.reason = job_id, set(), ""
        campaign.first_round = campaign.round_index + 1
        campaign.n_submitted += 1
        self._enter(Phase.RUNNING)
        begins = f"from round {campaign.first_round + 1} of {self.rules.n_rounds}"
        self._tell("submitted", f"job {job_id} submitted, {begins}", first_round=campaign.first_round)

    def kept(self, round_index: int, sites: Iterable[str], **facts: object) -> None:
        """Say that the result of a round is on this side's disk, with facts for the log; an older one is no news."""
        if round_index <= self.campaign.round_index:
            return
        self.campaign.round_index = round_index
        self.campaign.n_fruitless = 0
        self._round_ended = True
        self._timers.forget("no round")
        names = sorted(sites)
        said = f"round {round_index + 1} of {self.rules.n_rounds} is kept ({', '.join(names)})"
        self._tell("round", said, round=round_index, sites=names, **facts)

    def collected(self, look: Look, evaluated: bool) -> None:
        """Say that a job's result was fetched, or that there will be none."""
        campaign = self.campaign
        campaign.evaluated |= evaluated
        campaign.jobs.append(
            JobDone(
                campaign.job_id,
                look.job.status,
                campaign.first_round,
                campaign.round_index,
                tuple(sorted(campaign.crew)),
                campaign.reason,
            )
        )
        n_new = campaign.round_index + 1 - campaign.first_round
        self._tell("ended", f"job {campaign.job_id} is over as {look.job.status or 'unknown'}: {n_new} new rounds")
        campaign.job_id = ""
        if self.complete:
            self._enter(Phase.DONE)
            return
        campaign.n_fruitless = 0 if n_new else campaign.n_fruitless + 1
        if campaign.n_fruitless >= self.rules.max_attempts:
            self._give_up(f"{campaign.n_fruitless} jobs in a row left no new round")
            return
        self._enter(Phase.GATHERING)

    def _server_answers(self, look: Look, now: float) -> bool:
        silent = self._timers.lasting("silent", not look.answers, now)
        if silent is None:
            if self._timers.again("server"):
                self._tell("server-back", "the server answers again")
            return True
        if silent >= CONFIRM_S and self._timers.first_time("server"):
            self._tell("server-silent", "the server does not answer")
        if silent >= self.rules.give_up_s:
            self._give_up(f"the server did not answer for {silent:.0f} s")
        return False

    def _notice(self, look: Look) -> None:
        """Note who is there, and tell who came back."""
        campaign = self.campaign
        for site in sorted(look.present & campaign.away):
            campaign.away.discard(site)
            self._tell("site-back", f"{site} is back", site=site)
        campaign.known |= look.present

    def _gather(self, look: Look, now: float) -> Order | None:
        stray = self._stray(look, now)
        if stray is not None:
            return None if stray == "" else Abort(stray)
        waited = self._timers.lasting("gathering", True, now) or 0.0
        missing = self.campaign.known - self.campaign.away - look.present
        here = len(look.present)
        same = self._timers.unchanged("here", look.present, now)
        if here < self.rules.min_sites:
            self._tell_once("waiting", f"waiting for sites: {here} of at least {self.rules.min_sites} are there")
            if waited >= self.rules.give_up_s:
                self._give_up(f"only {here} of at least {self.rules.min_sites} sites were there for {waited:.0f} s")
            return None
        if missing and waited < self.rules.patience_s:
            self._tell_once("waiting", f"waiting for {', '.join(sorted(missing))}")
            return None
        if same < CONFIRM_S or waited < self._back_off():
            return None
        self._without(missing)
        self.campaign.token = secrets.token_hex(16)
        self._enter(Phase.SUBMITTING)
        return None  # the token is on disk before the job is on its way

    def _submit(self, look: Look) -> Order:
        self.campaign.server_start = look.server_start
        return Submit(self.campaign.token)

    def _follow(self, look: Look, now: float, round_ended: bool) -> Order | None:
        campaign = self.campaign
        if self._is_over(look, now):
            self._enter(Phase.COLLECTING)
            return self._collect(look, now)
        running = self._timers.lasting("running", look.job.runs, now)
        if running is None:
            if self._timers.held("pending", look.job.status in NOT_STARTED, now, self.rules.patience_s):
                self._tell_once("pending", f"job {campaign.job_id} waits to be scheduled ({look.job.status})")
            return None
        campaign.crew |= look.working(campaign.job_id)
        lost, silent, new = self._changes(look, now, running)
        for site in sorted((lost | silent) - campaign.away):
            self._tell_once(f"lost {site}", f"{site} does not work at the job any more", kind="site-lost", site=site)
        stuck = self._timers.lasting("no round", bool(lost | silent | new), now) or 0.0
        reason = self._reason_to_stop(lost, silent, new, stuck, round_ended)
        if not reason:
            return None
        campaign.reason = reason
        campaign.away |= silent
        self._tell("stopping", f"ending job {campaign.job_id}: {reason}", reason=reason)
        self._enter(Phase.STOPPING)
        return self._stop(look, now)

    def _changes(self, look: Look, now: float, running: float) -> tuple[set[str], set[str], set[str]]:
        """Return sites that lost the job, sites that do not answer, and sites that came after the job began."""
        campaign, working = self.campaign, look.working(self.campaign.job_id)
        idle = {
            site
            for site in campaign.known
            if self._timers.held(f"idle {site}", site in look.present - working, now, CONFIRM_S)
        }
        silent = {
            site
            for site in campaign.crew
            if self._timers.held(f"silent {site}", site not in look.present, now, self.rules.patience_s)
        }
        return idle & campaign.crew, silent, (idle - campaign.crew if running >= GRACE_S else set())

    def _reason_to_stop(self, lost: set[str], silent: set[str], new: set[str], stuck: float, round_ended: bool) -> str:
        """Return why the job is ended now; empty where it goes on."""
        n_left = len(self.campaign.crew - lost - silent)
        if self.complete:  # the adapter is being evaluated
            return "sites are missing at the evaluation" if lost | silent and stuck >= self.rules.patience_s else ""
        if n_left < self.rules.min_sites and lost | silent:
            return f"{_names(lost | silent)} lost it, and {n_left} sites are too few for a round"
        if round_ended and lost | new:
            return f"{_names(lost | new)} can take part again"
        if stuck >= self.rules.patience_s:
            return f"no round ended for {stuck:.0f} s without {_names(lost | silent | new)}"
        return ""

    def _stop(self, look: Look, now: float) -> Order | None:
        if self._is_over(look, now):
            self._enter(Phase.COLLECTING)
            return self._collect(look, now)
        if look.job.ended or not self._timers.every("abort", AGAIN_S, now):
            return None
        return Abort(self.campaign.job_id)

    def _collect(self, look: Look, now: float) -> Order | None:
        waited = self._timers.lasting("collecting", True, now) or 0.0
        copied = self.campaign.round_index >= self.campaign.first_round or look.job.ended
        limit = COPIED_S if copied and not self.complete else ARCHIVE_S
        if waited >= limit or (self._orphaned(look) and not look.job.ended):
            self.collected(look, evaluated=False)
            return None
        # whatever the status says: a job that is said to run may be archived, as a late RUNNING replaces the end; and
        # the download of one that ended may fail, as when the connection is lost at this moment
        return Collect(self.campaign.job_id) if self._timers.every("collect", COLLECT_S, now) else None

    def _orphaned(self, look: Look) -> bool:
        """Return whether the server that ran the job is gone: FLARE 2.9 archives nothing of it."""
        return look.server_start > self.campaign.server_start

    def _is_over(self, look: Look, now: float) -> bool:
        """Return whether two looks say that nothing of the job runs, and that nothing of it will."""
        status = look.job.status
        waits = status in NOT_STARTED or (status == BEING_SENT and not self._orphaned(look))
        gone = not look.job.runs and not waits
        return self._timers.held("over", gone, now, CONFIRM_S)

    def _stray(self, look: Look, now: float) -> str | None:
        """Return another job of this campaign that has to end first; empty: wait for it; None: there is none."""
        for job_id, seen in look.others.items():
            if (seen.runs or seen.status in NOT_STARTED) and self._timers.every(f"abort {job_id}", AGAIN_S, now):
                self._tell("stray", f"job {job_id} of this campaign is not over: it is aborted first")
                return job_id
        if any(_may_run(seen) for seen in look.others.values()):
            return ""
        past = {job.job_id for job in self.campaign.jobs}
        busy = any(past & jobs for jobs in look.sites.values())
        lasting = self._timers.lasting("busy", busy, now)
        return "" if lasting is not None and lasting < self.rules.patience_s else None

    def _without(self, missing: set[str]) -> None:
        for site in sorted(missing):
            self._tell("site-lost", f"going on without {site}", site=site)
        self.campaign.away |= missing

    def _back_off(self) -> float:
        n = self.campaign.n_fruitless
        return min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2.0 ** (n - 1)) if n else 0.0

    def _give_up(self, reason: str) -> None:
        self.campaign.reason = reason
        self._tell("gave-up", f"given up: {reason}", reason=reason)
        self._enter(Phase.GAVE_UP)

    def _enter(self, phase: Phase) -> None:
        self.campaign.phase = phase
        self._timers.clear()

    def _tell_once(self, name: str, text: str, kind: str = "", **facts: object) -> None:
        if self._timers.first_time(text):
            self._tell(kind or name, text, **facts)


def _may_run(seen: JobSeen) -> bool:
    return seen.runs or seen.status in NOT_STARTED


def _names(sites: Iterable[str]) -> str:
    return ", ".join(sorted(sites))
