"""One round of training at a site: a function of a model, features and a configuration.

The recipe follows CineMA's classifiers (AdamW, warm-up and cosine, label smoothing, clipping, inverse-frequency
class weights); see TrainConfig. The schedule spans the whole federation: a round continues it, never restarts it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.plan import AdapterPlan, Phase
from med_duallora.adapter.roles import Role
from med_duallora.cohorts.classes import check_trainable
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import ConfigError, TrainingDiverged
from med_duallora.settings.config import JobConfig, TrainConfig
from med_duallora.site.features import FeatureSource
from med_duallora.site.optimizer import moments_of, optimizer_of, scaler_of
from med_duallora.support.devices import autocast
from med_duallora.support.interruption import interruptible
from med_duallora.support.seeds import derived_seed, generator


@dataclass(frozen=True)
class RoundResult:
    """What one round of training gave.

    Args:
        loss: mean training loss over the round's subjects.
        n_steps: optimizer steps taken.
        moments: AdamW's state by ``<parameter>:<moment>`` and, in fp16, the loss scale under ``:<name>``, to continue
            from in the next round.
    """

    loss: float
    n_steps: int
    moments: dict[str, np.ndarray]


def train_round(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    *,
    job: JobConfig,
    site: str,
    round_index: int,
    moments: Mapping[str, np.ndarray],
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[dict[str, float]], None] = lambda _: None,
) -> RoundResult:
    """Train the model's adapters and head in place for one round.

    Args:
        model: holds the values to start from and, afterwards, the trained ones.
        source: trunk features of the subjects.
        subjects: the site's training split.
        job: the recipe.
        site: names the site's random streams.
        round_index: from 0.
        moments: optimizer state of the site's previous round; empty to start anew.
        should_stop: asked before every subject and every layer, see ``interruptible``.
        on_progress: called after each step with ``loss``, ``lr`` and ``step``.

    Raises:
        UnfitError: the subjects are all of one class.
        ConfigError: the round has fewer steps than the method has phases.
        TrainingAborted: ``should_stop`` said so; the model is then in the middle of a round.
        TrainingDiverged: a loss or gradient is not finite; the model is then in the middle of a round.
    """
    settings, plan = job.train, model.plan
    batches = list(_batches(len(subjects), settings, site, round_index))
    phases = phase_of_steps(plan, len(batches))
    _check_every_phase_has_a_step(plan, phases, settings)
    steps = [
        _Step(
            *batch,
            roles=plan.of_phase(phases[step]) - plan.resting(round_index),
            phase=plan.phases[phases[step]],
            progress=(round_index + step / len(batches)) / settings.n_rounds,
        )
        for step, batch in enumerate(batches)
    ]
    torch.manual_seed(derived_seed(settings.seed, "torch", site, round_index))
    return _taken(model, source, subjects, settings, steps, moments, should_stop, on_progress)


def train_after(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    *,
    job: JobConfig,
    site: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train what stays at the site in place, beside a global adapter that does not change any more.

    It takes half as many passes over the subjects as all rounds together, with a learning-rate schedule of its own.

    Args:
        model: holds the global adapter, and what stays as it starts.
        source: see ``train_round``.
        subjects: likewise.
        job: likewise.
        site: likewise.
        should_stop: likewise.

    Raises:
        UnfitError: see ``train_round``.
        TrainingAborted: likewise.
        TrainingDiverged: likewise.
    """
    settings, kept = job.train, model.plan.kept
    passes = replace(settings, local_epochs=max(1, settings.n_rounds * settings.local_epochs // 2))
    batches = list(_batches(len(subjects), passes, site, settings.n_rounds))
    steps = [_Step(*batch, kept, Phase(), step / len(batches)) for step, batch in enumerate(batches)]
    torch.manual_seed(derived_seed(settings.seed, "torch", site, settings.n_rounds))
    _taken(model, source, subjects, settings, steps, {}, should_stop, lambda _: None)


@dataclass(frozen=True)
class _Step:
    """What one step of the optimizer does.

    Args:
        indices: of the subjects.
        views: of each.
        roles: that train.
        phase: says which adapters act.
        progress: in [0, 1], on the learning-rate schedule.
    """

    indices: list[int]
    views: list[int]
    roles: frozenset[Role]
    phase: Phase
    progress: float


def _taken(  # noqa: PLR0917
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    settings: TrainConfig,
    steps: Sequence[_Step],
    moments: Mapping[str, np.ndarray],
    should_stop: Callable[[], bool],
    on_progress: Callable[[dict[str, float]], None],
) -> RoundResult:
    """Take steps, see ``train_round``."""
    plan, parameters = model.plan, model.trained()
    optimizer = optimizer_of(model, moments, settings)
    criterion = _criterion(subjects, settings).to(source.device)
    scaler = scaler_of(source.device, moments, settings)
    incoming = {name: value.detach().clone() for name, value in parameters.items()} if plan.loss_terms else {}
    losses: list[float] = []
    training: frozenset[Role] | None = None
    model.train()
    for number, step in enumerate(steps, start=1):
        if step.roles != training:
            training = step.roles
            model.train_only(training)
        chosen = [subjects[index] for index in step.indices]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step.progress, settings) * group["factor"]
        labels = torch.tensor([subject.label for subject in chosen], device=source.device)
        with interruptible(model, should_stop), model.using(step.phase.global_acts, step.phase.local_acts):
            trunk = source.batch(chosen, step.views, should_stop)
            with autocast(source.device, settings.precision):
                loss = criterion(model.tail(trunk), labels)
                for term in plan.loss_terms:
                    loss = loss + term(model, incoming)
            _step(loss, optimizer, parameters, scaler, settings)
        losses += [loss.item()] * len(chosen)
        on_progress({"loss": loss.item(), "lr": optimizer.param_groups[0]["lr"], "step": float(number)})
    model.eval()
    model.train_only(plan.trained)
    return RoundResult(float(np.mean(losses)), len(steps), moments_of(optimizer, parameters, scaler))


def learning_rate(progress: float, settings: TrainConfig) -> float:
    """Return the learning rate at a part ``progress`` in [0, 1] of the whole federation: warm-up, then cosine."""
    if progress < settings.warmup_fraction:
        return settings.lr * max(progress / settings.warmup_fraction, 0.01)
    part = (progress - settings.warmup_fraction) / (1 - settings.warmup_fraction)
    return settings.min_lr + (settings.lr - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * part))


def class_weights(labels: Sequence[int], threshold: float) -> tuple[float, float]:
    """Return the loss weights of classes 0 and 1: inverse frequency above an imbalance of ``threshold``, else 1.

    Raises:
        UnfitError: a class has no subject, so that its weight is undefined.
    """
    check_trainable(labels)
    counts = Counter(labels)
    if max(counts.values()) / min(counts.values()) <= threshold:
        return 1.0, 1.0
    return len(labels) / (2 * counts[0]), len(labels) / (2 * counts[1])


def phase_of_steps(plan: AdapterPlan, n_steps: int) -> list[int]:
    """Return the index of the plan's phase for each step of a round; a phase gets its share, give or take a step."""
    ends = np.cumsum([phase.share for phase in plan.phases])
    return [int(np.searchsorted(ends[:-1], step / n_steps + 1e-9, side="right")) for step in range(n_steps)]


def _check_every_phase_has_a_step(plan: AdapterPlan, phases: Sequence[int], settings: TrainConfig) -> None:
    """Refuse a round so short that what a later phase trains would never move, and be sent all the same."""
    wanted = sum(phase.share > 0 for phase in plan.phases)
    if len(set(phases)) < wanted:
        raise ConfigError(
            f"train.local_epochs = {settings.local_epochs} gives a round of {len(phases)} step(s) at this site, but "
            f"the method trains in {wanted} parts of a round: raise train.local_epochs or lower train.batch_size",
            key="train.local_epochs",
            value=settings.local_epochs,
        )


def _batches(n: int, settings: TrainConfig, site: str, round_index: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (subject indices, views) of every step of a round; the batches of an epoch are of one size, give or take 1.

    A remainder of one or two subjects would have no statistics for the head's standardisation.
    """
    n_batches = math.ceil(n / settings.batch_size)
    for epoch in range(settings.local_epochs):
        stream = generator(settings.seed, "order", site, round_index, epoch)
        order = stream.permutation(n)
        views = stream.integers(0, settings.n_views + 1, size=n)
        for chosen, seen in zip(np.array_split(order, n_batches), np.array_split(views, n_batches), strict=True):
            yield chosen.tolist(), seen.tolist()


def _criterion(subjects: Sequence[PreparedSubject], settings: TrainConfig) -> nn.CrossEntropyLoss:
    weights = class_weights([subject.label for subject in subjects], settings.class_weight_threshold)
    return nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=settings.label_smoothing)


def _step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    scaler: torch.amp.GradScaler,
    settings: TrainConfig,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
    # an overflowing gradient is an ordinary event in fp16: the scaler skips the step and lowers the scale
    if not (torch.isfinite(loss) and (torch.isfinite(norm) or scaler.is_enabled())):
        raise TrainingDiverged(
            f"the loss or its gradient is not finite; lower train.lr ({settings.lr:g}) or the adapters' alpha, or use "
            f"another train.precision than {settings.precision}"
        )
    scaler.step(optimizer)
    scaler.update()
