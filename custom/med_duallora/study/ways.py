"""What a run does, one function per way; each gives probabilities by site, variant and subject."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.cohorts.phantom.truth import read_values
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.engine import FederationResult, run_federation
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.baseline import backbone_probabilities, logistic_head, pooled_features
from med_duallora.site.head import correct_head, fit_head, summaries_of
from med_duallora.site.kept_calibration import PREDICTIONS_FILE
from med_duallora.site.model import SiteModel, State
from med_duallora.site.secret import SECRET_FILE, site_secret, write_secret
from med_duallora.study.arms import Way
from med_duallora.study.attribution import attribution
from med_duallora.study.plan import CACHE, WORK, RunSpec
from med_duallora.study.splits import Dealt, deal, names_in_one_place, permuted, write
from med_duallora.support.files import read_object
from med_duallora.support.private import open_own, private_folder
from med_duallora.support.seeds import generator

Chances = dict[str, dict[str, float]]
"""Probability of disease by variant and subject."""
CACHE_MB = 65_536
N_TREES = 500
SHOTS = (4, 8, 16)
"""Labelled subjects of a new site, half of each class."""
BOTH = "both"
"""The variant that a method is judged by: all that it trained."""
FROZEN = " frozen"
"""Ends the name of a variant without adapters."""


@dataclass
class Outcome:
    """What a run gave.

    Args:
        chances: by site.
        attributions: by site, see ``Attribution``.
        tensor_bytes: of what a site sends in a round.
        rounds: seconds and aggregation residual of every round.
    """

    chances: dict[str, Chances]
    attributions: dict[str, dict[str, float]] = field(default_factory=dict)
    tensor_bytes: int = 0
    rounds: list[dict[str, float | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where one run works, a folder that goes with it.

    Args:
        spec: what is run.
        folder: of this run alone.
        dealt: the subjects of every site.
    """

    spec: RunSpec
    folder: Path
    dealt: Mapping[str, Dealt]

    def config(self, name: str, data: Path) -> SiteConfig:
        """Return the configuration of a site; all share the study's cache and the secret that seals it."""
        shared = self.spec.out / CACHE
        state = self.folder / "states" / name
        private_folder(state)
        write_secret(state / SECRET_FILE, site_secret(shared))
        return SiteConfig(
            data_dir=data,
            state_dir=state,
            cache_dir=shared / "features",
            backbone_checkpoint=self.spec.checkpoint,
            device="cpu",
            cache_budget_mb=CACHE_MB,
            policy=SitePolicy.for_one_machine(),
        )

    def sites(self) -> dict[str, SiteConfig]:
        """Return the configuration of every site, with its cohort written."""
        return {
            site: self.config(site, write([part], self.folder / "data" / site)) for site, part in self.dealt.items()
        }


@contextmanager
def place_of(spec: RunSpec) -> Iterator[Place]:
    """Give a run a folder with its subjects dealt out; it is gone afterwards."""
    dealt = {
        site: deal(folder, site, spec.n_train, spec.n_test, spec.seed) for site, folder in spec.cohort.sites.items()
    }
    if spec.arm.permuted:
        dealt = {site: permuted(part, site, spec.seed) for site, part in dealt.items()}
    private_folder(spec.out / WORK)  # beside the results, because it names subjects
    with tempfile.TemporaryDirectory(dir=spec.out / WORK) as name:
        yield Place(spec, Path(name), dealt)


def federated(place: Place) -> Outcome:
    """Run the arm's method over all sites."""
    job, sites = place.spec.job, place.sites()
    result = run_federation(job, sites)
    chances = {site: _kept(config, job, result.lineage) for site, config in sites.items()}
    found = {site: _attribution(site, job, config, result.lineage) for site, config in sites.items()}
    return Outcome(chances, found, EgressContract.for_job(job).tensor_bytes, _rounds(result))


def pooled(place: Place) -> Outcome:
    """Train on all sites' subjects in one place, and test on each site's."""
    names = names_in_one_place(place.dealt)
    site_of = {id(part): site for site, part in place.dealt.items()}
    folder = write(
        list(place.dealt.values()), place.folder / "data" / "all", lambda part, name: names[site_of[id(part)], name]
    )
    config = place.config("all", folder)
    result = run_federation(place.spec.job, {"all": config})
    kept = _kept(config, place.spec.job, result.lineage)
    chances = {
        site: {
            variant: {name: said[names[site, name]] for name in part.named("test")} for variant, said in kept.items()
        }
        for site, part in place.dealt.items()
    }
    return Outcome(chances, rounds=_rounds(result))


def own_head(place: Place) -> Outcome:
    """Fit a head to each site's frozen features."""
    chances = {}
    for site, config in place.sites().items():
        model, cohort = SiteModel(site, place.spec.job, config), PreparedCohort.read(config.data_dir)
        train, test = cohort.split("train"), cohort.split("test")
        found = backbone_probabilities(model.network, model.source, train, test, place.spec.job.train)
        chances[site] = {BOTH: _by_name(test, found)}
    return Outcome(chances)


def shared_head(place: Place) -> Outcome:
    """Fit one head to the frozen features of all sites, each standardised with its own training subjects.

    They are centred between the classes' means, as those of the federated methods are in predictions.
    """
    seen, labels, tested = [], [], {}
    for site, config in place.sites().items():
        model, cohort = SiteModel(site, place.spec.job, config), PreparedCohort.read(config.data_dir)
        train, test = cohort.split("train"), cohort.split("test")
        views = range(place.spec.job.train.n_views + 1)
        found = [pooled_features(model.network, model.source, train, view) for view in views]
        diseased = np.array([subject.label for subject in train]) == 1
        mean = (found[0][diseased].mean(0) + found[0][~diseased].mean(0)) / 2
        spread = found[0].std(0) + 1e-6
        seen += [(view - mean) / spread for view in found]
        labels += [subject.label for subject in train] * len(found)
        tested[site] = test, (pooled_features(model.network, model.source, test, 0) - mean) / spread
    head = logistic_head().fit(np.concatenate(seen), labels)
    return Outcome({site: {BOTH: _by_name(test, head.predict_proba(x)[:, 1])} for site, (test, x) in tested.items()})


def truth(place: Place) -> Outcome:
    """Fit a forest to the true values of all sites' training phantoms: what is in the labels, without an image."""
    from sklearn.ensemble import RandomForestClassifier

    if place.spec.truth is None:
        raise ValueError("the run was planned without a table of true values")
    rows = [row for part in place.dealt.values() for row in part.rows if row["split"] == "train"]
    forest = RandomForestClassifier(N_TREES, class_weight="balanced", random_state=place.spec.seed)
    names, labels = [row["subject"] for row in rows], [int(row["label"]) for row in rows]
    forest.fit(read_values(place.spec.truth, names), labels)
    chances: dict[str, Chances] = {}
    for site, part in place.dealt.items():
        test = part.named("test")
        said = forest.predict_proba(read_values(place.spec.truth, test))[:, 1]
        chances[site] = {BOTH: dict(zip(test, map(float, said), strict=True))}
    return Outcome(chances)


def new_site(place: Place) -> Outcome:
    """Leave every site out of the training once; it then has no labelled subject, or a few of them."""
    sites, job = place.sites(), place.spec.job
    chances, rounds = {}, []
    for site, config in sites.items():
        others = {
            name: replace(other, state_dir=other.state_dir / f"without-{site}")
            for name, other in sites.items()
            if name != site
        }
        for other in others.values():
            private_folder(other.state_dir)
            write_secret(other.state_dir / SECRET_FILE, site_secret(place.spec.out / CACHE))
        result = run_federation(job, others)
        rounds += _rounds(result)
        model = SiteModel(site, job, config)
        model.start_from(result.global_state)
        chances[site] = _shots(model, result.global_state, PreparedCohort.read(config.data_dir), place.spec)
    return Outcome(chances, tensor_bytes=EgressContract.for_job(job).tensor_bytes, rounds=rounds)


WAYS: Mapping[Way, Callable[[Place], Outcome]] = {
    Way.FEDERATED: federated,
    Way.POOLED: pooled,
    Way.OWN_HEAD: own_head,
    Way.SHARED_HEAD: shared_head,
    Way.TRUTH: truth,
    Way.NEW_SITE: new_site,
}


def shot_name(k: int, frozen: bool = False) -> str:
    """Return the name of the variant with k labelled subjects of the new site."""
    return f"k={k}{FROZEN if frozen else ''}"


def few_of(subjects: tuple[PreparedSubject, ...], k: int, seed: int) -> tuple[PreparedSubject, ...]:
    """Return k subjects, half of each class, or none where a class has too few of them."""
    names: set[str] = set()
    for label in (0, 1):
        members = sorted(subject.subject for subject in subjects if subject.label == label)
        if len(members) < k // 2:
            return ()
        order = generator(seed, "shots", label).permutation(len(members))
        names |= {members[row] for row in order[: k // 2]}
    return tuple(subject for subject in subjects if subject.subject in names)


def _shots(model: SiteModel, received: State, cohort: PreparedCohort, spec: RunSpec) -> Chances:
    """Return what a new site's model says, with the global adapter and with the frozen backbone."""
    train, test = cohort.split("train"), cohort.split("test")
    found: Chances = {}
    with model.network.using(True, False):
        if spec.job.lora.head_policy != "local":  # else there is no head before there is a labelled subject
            model.fit_head(train, labelled=False)  # a site that has no label has statistics all the same
            found[shot_name(0)] = _by_name(test, model.predict(test))
    for k in SHOTS:
        few = few_of(train, k, spec.seed)
        for adapted in (True, False) if few else ():
            model.start_from(received)  # the head of another number of subjects is no start
            with model.network.using(adapted, False):
                views = [
                    summaries_of(model.network, model.source, few, view, precision=spec.job.train.precision)
                    for view in range(spec.job.train.n_views + 1)
                ]
                fit = correct_head if adapted and model.network.plan.lora.head_policy != "local" else fit_head
                fit(model.network, views, [subject.label for subject in few])
                found[shot_name(k, frozen=not adapted)] = _by_name(test, model.predict(test))
    return found


def _kept(config: SiteConfig, job: JobConfig, lineage: Lineage) -> Chances:
    """Return the predictions that the evaluation left at a site."""
    path = config.state_dir / job.experiment / lineage.run_id / PREDICTIONS_FILE
    rows: list[dict[str, Any]] = read_object(path, open_own)["predictions"]
    variants = [name for name in rows[0] if name not in ("subject", "label")]
    return {variant: {row["subject"]: row[variant] for row in rows} for variant in variants}


def _attribution(site: str, job: JobConfig, config: SiteConfig, lineage: Lineage) -> dict[str, float]:
    model = SiteModel(site, job, config)
    model.follow(lineage)
    model.recall()
    found = attribution(model.network.modules())
    return {name: value for name, value in vars(found).items() if np.isfinite(value)}


def _rounds(result: FederationResult) -> list[dict[str, float | None]]:
    return [{"seconds": record.seconds, "residual": record.residual} for record in result.rounds]


def _by_name(subjects: tuple[PreparedSubject, ...], chances: np.ndarray) -> dict[str, float]:
    return {subject.subject: float(chance) for subject, chance in zip(subjects, chances, strict=True)}
