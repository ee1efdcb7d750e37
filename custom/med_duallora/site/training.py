"""One round of training at a site: a function of a model, features and a configuration.

The recipe follows CineMA's classifiers (AdamW, warm-up and cosine, label smoothing, clipping, inverse-frequency
class weights); see TrainConfig. The schedule spans the whole federation: a round continues it, never restarts it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.plan import AdapterPlan
from med_duallora.cohorts.classes import check_trainable
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import ConfigError, TrainingDiverged
from med_duallora.settings.config import JobConfig, TrainConfig
from med_duallora.site.features import FeatureSource
from med_duallora.support.devices import autocast
from med_duallora.support.interruption import interruptible
from med_duallora.support.seeds import derived_seed, generator

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SCALER = ("scale", "_growth_tracker")


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
    torch.manual_seed(derived_seed(settings.seed, "torch", site, round_index))
    parameters = model.trained()
    optimizer = _optimizer(model, moments, settings)
    criterion = _criterion(subjects, settings).to(source.device)
    scaler = _scaler(source.device, moments, settings)
    batches = list(_batches(len(subjects), settings, site, round_index))
    phases = phase_of_steps(plan, len(batches))
    _check_every_phase_has_a_step(plan, phases, settings)
    incoming = {name: value.detach().clone() for name, value in parameters.items()} if plan.loss_terms else {}
    losses: list[float] = []
    model.train()
    for step, (indices, views) in enumerate(batches):
        if step == 0 or phases[step] != phases[step - 1]:
            model.train_only(plan.of_phase(phases[step]) - plan.resting(round_index))
        phase = plan.phases[phases[step]]
        chosen = [subjects[index] for index in indices]
        progress = (round_index + step / len(batches)) / settings.n_rounds
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, settings) * group["factor"]
        labels = torch.tensor([subject.label for subject in chosen], device=source.device)
        with interruptible(model, should_stop), model.using(phase.global_acts, phase.local_acts):
            trunk = source.batch(chosen, views, should_stop)
            with autocast(source.device, settings.precision):
                loss = criterion(model.tail(trunk), labels)
                for term in plan.loss_terms:
                    loss = loss + term(model, incoming)
            _step(loss, optimizer, parameters, scaler, settings)
        losses += [loss.item()] * len(chosen)
        on_progress({"loss": loss.item(), "lr": optimizer.param_groups[0]["lr"], "step": float(step + 1)})
    model.eval()
    model.train_only(plan.trained)
    return RoundResult(float(np.mean(losses)), len(batches), _moments(optimizer, parameters, scaler))


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


def _optimizer(model: DualLoRAModel, moments: Mapping[str, np.ndarray], settings: TrainConfig) -> torch.optim.AdamW:
    """Return the optimizer in its last state: first the group of what is sent, then of what is kept.

    The moments of the global factors are forgotten where the server returns others than those they belong to. Where
    nothing is sent, nothing is the local part beside a shared one, so that all has the whole rate and the plain decay.
    """
    parameters, kept = model.trained(), model.of_roles(model.plan.kept)
    sent = [parameter for name, parameter in parameters.items() if name not in kept]
    stays = [parameter for name, parameter in parameters.items() if name in kept]
    rate, decay = (settings.local_lr_factor, settings.local_weight_decay_factor) if sent else (1.0, 1.0)
    optimizer = torch.optim.AdamW(
        [
            {"params": sent, "factor": 1.0},
            {"params": stays, "factor": rate, "weight_decay": settings.weight_decay * decay},
        ],
        lr=settings.lr,
        betas=(settings.betas[0], settings.betas[1]),
        weight_decay=settings.weight_decay,
    )
    renewed = model.of_roles(model.plan.renewed)
    for name, parameter in parameters.items():
        if name not in renewed and f"{name}:step" in moments:
            optimizer.state[parameter] = {
                # AdamW counts its steps on the CPU whatever the parameter's device
                kind: torch.from_numpy(np.array(moments[f"{name}:{kind}"])).to(
                    "cpu" if kind == "step" else parameter.device
                )
                for kind in MOMENTS
            }
    return optimizer


def _scaler(device: torch.device, moments: Mapping[str, np.ndarray], settings: TrainConfig) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    if moments and scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), **{name: moments[f":{name}"].item() for name in SCALER}})
    return scaler


def _moments(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter], scaler: torch.amp.GradScaler
) -> dict[str, np.ndarray]:
    found = {
        f"{name}:{kind}": optimizer.state[parameter][kind].detach().cpu().numpy().copy()
        for name, parameter in parameters.items()
        if optimizer.state[parameter]  # empty where fp16 skipped every step so far
        for kind in MOMENTS
    }
    if scaler.is_enabled():
        found |= {f":{name}": np.array(scaler.state_dict()[name]) for name in SCALER}
    return found
