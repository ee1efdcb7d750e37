"""The model that a site uses where that is not the one with both adapters: kept beside it, whole.

It lies in a folder of its own below the run's, as a state with the job that it belongs to, so that whoever reads a
trained model reads this one the same way. ``calibration.json`` says which one is used.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

from med_duallora import __version__
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.measures import FEDERATED, VARIANTS
from med_duallora.settings.config import JobConfig
from med_duallora.site.alone import TrainedAlone
from med_duallora.site.head import fit_head, summaries_of
from med_duallora.site.model import SiteModel, identity_of
from med_duallora.site.state import STATE_FILE, Owner, SiteState, SiteStateStore, state_checksum
from med_duallora.site.variants import Subjects

CHOSEN_FOLDER = "chosen"
ACTS = "acts"
"""Entry of its ``model.json``: whether the global and the local adapter act."""
BOTH_ACT, NONE_ACTS = (True, True), (False, False)


@dataclass(frozen=True)
class Deployed:
    """A model as it is kept.

    Args:
        job: that it belongs to.
        acts: whether its global and its local adapter act.
        state: both adapters, the head and its statistics.
    """

    job: JobConfig
    acts: tuple[bool, bool]
    state: SiteState


def keep_chosen(  # noqa: PLR0917
    model: SiteModel,
    variant: str,
    state: SiteState,
    train: Subjects,
    alone: TrainedAlone | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Keep the model of a variant in the run's folder, and return the checksum of its state; empty for both adapters.

    Args:
        model: as it was evaluated; its network is left as it is.
        variant: one of ``measures.CHOICES``.
        state: that the site keeps of the federation.
        train: the training subjects of the site.
        alone: the model of the variant ``alone``.
        should_stop: asked before every subject.

    Raises:
        TrainingAborted: ``should_stop`` said so.
        StateError: it cannot be written.
    """
    folder = model.directory / CHOSEN_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if variant == FEDERATED:
        return ""
    found = _kept_alone(alone) if alone and variant == "alone" else _kept_of(model, variant, train, should_stop)
    store = SiteStateStore(folder, Owner(identity_of(model.site, found.job), model.backbone_sha256))
    facts = {"site": model.site, "job": found.job.to_dict(), "backbone_sha256": model.backbone_sha256}
    kept = replace(found.state, round_index=state.round_index, cohort=state.cohort, reference=model.reference)
    store.save(kept)
    store.describe({"med_duallora": __version__, **facts, "lineage": model.lineage.to_list(), ACTS: list(found.acts)})
    return state_checksum(folder / STATE_FILE)


def _kept_alone(alone: TrainedAlone) -> Deployed:
    return Deployed(alone.job, BOTH_ACT, _state_of(alone.network))


def _kept_of(model: SiteModel, variant: str, train: Subjects, should_stop: Callable[[], bool]) -> Deployed:
    """Return the site's model with an adapter switched off, or with none and the head of the comparison."""
    network, settings = model.network, model.job.train
    acts = VARIANTS[variant].adapters or NONE_ACTS
    values, statistics = network.values(network.plan.trained), model.statistics()
    with network.using(*acts):
        if acts == NONE_ACTS:
            views = [
                summaries_of(network, model.source, train, view, precision=settings.precision, should_stop=should_stop)
                for view in range(settings.n_views + 1)
            ]
            fit_head(network, views, [subject.label for subject in train])
        else:
            model.fit_head(train, should_stop)
    found = Deployed(model.job, acts, _state_of(network))
    network.load_values(network.plan.trained, values)
    network.head_norm.use(statistics)
    return found


def _state_of(network: DualLoRAModel) -> SiteState:
    """Return what a prediction needs of a network; in full precision, because it does not travel."""
    plan = network.plan
    kept, sent = network.values(plan.kept), network.values(plan.sent)
    return SiteState(0, kept, moments={}, sent=sent, statistics=network.head_norm.statistics())
