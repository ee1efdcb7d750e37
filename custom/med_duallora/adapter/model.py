"""Backbone, adapters and head as one model, split at the cut into a frozen trunk and a trained tail."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from med_duallora.adapter.changed import ChangedLinear, ChangedNorm
from med_duallora.adapter.head_norm import HeadNorm
from med_duallora.adapter.lora import DualLoRALinear, SharedHead
from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.plan import AdapterPlan
from med_duallora.adapter.roles import Declared, Role, Start, declarations, pairs, twins
from med_duallora.backbone import BackboneConfig, CineMAClassifier
from med_duallora.errors import ConfigError
from med_duallora.settings.config import JobConfig
from med_duallora.support.seeds import derived_seed

N_CLASSES = 2
NORMS = ("norm1", "norm2")
"""The norms of a transformer block."""
OWNERS = {"q": "attn", "kv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}
"""Which part of a transformer block holds each target; these are all of its linear layers."""


@dataclass(frozen=True)
class TrunkFeatures:
    """What the frozen trunk gives for a batch.

    Args:
        tokens: (batch, 1 + n_tokens, dim), the tokens that enter block ``cut``, class token first.
        fusion_term: (batch, n_tokens, dim), the stem's skip term that is added to the patch tokens after the encoder.
    """

    tokens: Tensor
    fusion_term: Tensor


class DualLoRAModel(nn.Module):
    """The CineMA classifier with dual-LoRA layers in its last blocks, or with changes of their whole weights.

    Everything is frozen except what the plan trains. The first values of adapters and heads depend only on the seed and
    the parameter's name, so every site starts from the same point. Heads start at zero, because a random head is noise
    that a federation's few steps do not unlearn.

    Args:
        classifier: the backbone with its heads; it is adapted in place.
        plan: what is adapted, and what becomes of it.
        seed: of the experiment.

    Raises:
        ConfigError: more blocks shall be adapted than the backbone has.
        TypeError: the classifier is adapted already.
    """

    def __init__(self, classifier: CineMAClassifier, plan: AdapterPlan, seed: int) -> None:
        super().__init__()
        lora, depth = plan.lora, len(classifier.blocks)
        if lora.n_blocks > depth:
            message = f"lora.n_blocks = {lora.n_blocks}, but the backbone has {depth} blocks"
            raise ConfigError(message, key="lora.n_blocks", value=lora.n_blocks, limit=f"at most {depth}")
        self.plan = plan
        self.classifier = classifier.requires_grad_(False)
        self.cut = depth - lora.n_blocks
        for block in list(classifier.blocks)[self.cut :]:
            _adapt(block, plan)
        if lora.head_policy == "shared":
            scale = lora.alpha_global / lora.rank_global
            for name in classifier.pred_head_dict:
                classifier.pred_head_dict[name] = SharedHead(classifier.config.embed_dim, N_CLASSES, scale)
        self.head_norm = HeadNorm(2 * classifier.config.embed_dim, active=lora.head_norm == "site")
        self._declared = declarations(self)  # once: walking all modules takes as long as a small step of training
        for name, value in self.first_values(plan.treatments, seed).items():
            self.get_parameter(name).data.copy_(value)
        self.train_only(plan.trained)

    def declared(self) -> dict[str, Declared]:
        """Declare the sites' own heads (see ``roles``); adapters and shared heads declare themselves."""
        heads = {name: head for name, head in self.classifier.pred_head_dict.items() if isinstance(head, nn.Linear)}
        return {
            f"classifier.pred_head_dict.{name}.{value}": Declared(Role.HEAD, Start.ZERO)
            for name, head in heads.items()
            for value, _ in head.named_parameters()
        }

    def first_values(self, roles: Iterable[Role], seed: int) -> dict[str, Tensor]:
        """Return what the parameters of some roles start with; it depends on their names and the seed only."""
        beside, found = twins(self), {}
        for name, parameter in self.of_roles(roles).items():
            declared = self._declared[name]
            treatment = self.plan.treatments[declared.role]
            start = treatment.start or declared.start
            drawn_as = beside[name] if treatment.as_twin else name
            generator = torch.Generator().manual_seed(derived_seed(seed, "initial", drawn_as))
            found[name] = start.first_value(tuple(parameter.shape), generator)
        return found

    def train_only(self, roles: Iterable[Role]) -> None:
        """Let gradients reach the parameters of some roles, and no other ones."""
        wanted = self.of_roles(roles)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in wanted)

    def of_roles(self, roles: Iterable[Role]) -> dict[str, nn.Parameter]:
        """Return the parameters of some roles by name, in the model's order."""
        wanted = set(roles)
        return {name: value for name, value in self.named_parameters() if self._declared[name].role in wanted}

    def trained(self) -> dict[str, nn.Parameter]:
        """Return every parameter that trains, by name."""
        return self.of_roles(self.plan.trained)

    def sent_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the names of the sent factors that belong together, as (B, A)."""
        sent = self.of_roles(self.plan.sent)
        return tuple(pair for pair in pairs(self) if all(name in sent for name in pair))

    def values(self, roles: Iterable[Role]) -> dict[str, np.ndarray]:
        """Return copies of the parameters of some roles as float32 arrays."""
        found = self.of_roles(roles)
        return {name: value.detach().to("cpu", torch.float32, copy=True).numpy() for name, value in found.items()}

    def load_values(self, roles: Iterable[Role], values: Mapping[str, np.ndarray]) -> None:
        """Set the parameters of some roles; ``values`` must hold exactly these (ValueError names the first other)."""
        parameters = self.of_roles(roles)
        differing = sorted(set(parameters) ^ set(values))
        if differing:
            raise ValueError(f"{differing[0]} is {'missing' if differing[0] in parameters else 'unexpected'}")
        for name, parameter in parameters.items():
            if tuple(values[name].shape) != tuple(parameter.shape):
                raise ValueError(f"{name} has shape {values[name].shape}, expected {tuple(parameter.shape)}")
            parameter.data.copy_(torch.from_numpy(np.array(values[name])))

    def sent_rank(self) -> int:
        """Return the highest rank that a layer's update can have in a payload, the head aside."""
        if Role.WEIGHTS not in self.plan.sent:
            return self.plan.lora.rank_global
        return max(min(value.shape) for value in self.of_roles([Role.WEIGHTS]).values() if value.ndim > 1)

    def switch(self, global_adapter: bool, local_adapter: bool) -> None:
        """Switch adapters of the blocks on or off from now on, see ``using``."""
        layers, changed = self._switched()
        for layer in layers:
            layer.global_active, layer.local_active = global_adapter, local_adapter
        for part in changed:
            part.active = global_adapter if part.role in self.plan.sent else local_adapter

    def _switched(self) -> tuple[list[DualLoRALinear], list[ChangedLinear | ChangedNorm]]:
        modules = list(self.modules())
        layers = [module for module in modules if isinstance(module, DualLoRALinear)]
        return layers, [module for module in modules if isinstance(module, ChangedLinear | ChangedNorm)]

    @contextmanager
    def using(self, global_adapter: bool, local_adapter: bool) -> Iterator[None]:
        """Evaluate with some adapters of the blocks switched off inside the block; heads always act.

        Changes of whole parameters act with the global adapter where they are sent, else with the local one.
        """
        layers, changed = self._switched()
        before = [(layer.global_active, layer.local_active) for layer in layers]
        changed_before = [part.active for part in changed]
        self.switch(global_adapter, local_adapter)
        try:
            yield
        finally:
            for layer, active in zip(layers, before, strict=True):
                layer.global_active, layer.local_active = active
            for part, was_active in zip(changed, changed_before, strict=True):
                part.active = was_active

    @contextmanager
    def training_first(self, n_components: int) -> Iterator[None]:
        """Let only the first components of the blocks' global adapters train inside the block; all of them act.

        Afterwards the others are what they were, to the bit. A shared head, whose rank is its own, trains whole.

        Args:
            n_components: how many; 0, or a rank that is no higher: all of them.
        """
        layers, _ = self._switched()
        try:
            for layer in layers if n_components else ():
                layer.hold(n_components)
            yield
        finally:
            for layer in layers:
                layer.release()

    @torch.no_grad()
    def trunk(self, x: Tensor) -> TrunkFeatures:
        """Run the frozen part on x (batch, n_frames * in_chans, X, Y, Z), in evaluation mode."""
        backbone = self.classifier
        was_training = backbone.training
        backbone.eval()
        try:
            tokens, skips = backbone.embed(x)
            tokens = backbone.with_cls(tokens)
            for block in list(backbone.blocks)[: self.cut]:
                tokens = block(tokens)
            return TrunkFeatures(tokens, backbone.fusion_term(skips))
        finally:
            backbone.train(was_training)

    def features(self, trunk: TrunkFeatures) -> tuple[Tensor, Tensor]:
        """Run the adapted blocks: class token (batch, 1, dim) and fused patch tokens (batch, n_tokens, dim)."""
        tokens = trunk.tokens
        for block in list(self.classifier.blocks)[self.cut :]:
            tokens = block(tokens)
        return self.classifier.finish(tokens, trunk.fusion_term)

    def summaries(self, trunk: TrunkFeatures) -> Tensor:
        """Return what the heads read (batch, 2 * dim): the class token, then the mean of the fused patch tokens."""
        cls, patches = self.features(trunk)
        return torch.cat([cls[:, 0], patches.mean(dim=1)], dim=1)

    def tail(self, trunk: TrunkFeatures) -> Tensor:
        """Return the logits (batch, n_classes) of trunk features."""
        cls, patches = self.head_norm(self.summaries(trunk)).chunk(2, dim=1)
        return self.classifier.head(cls[:, None], patches[:, None], reduce="all")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (batch, n_classes) of x (batch, n_frames * in_chans, X, Y, Z)."""
        return self.tail(self.trunk(x))


def _adapt(block: nn.Module, plan: AdapterPlan) -> None:
    lora, whole = plan.lora, Role.WEIGHTS in plan.trained
    for target in OWNERS if whole else lora.targets:
        parent = block.get_submodule(OWNERS[target])
        base = getattr(parent, target)
        if not isinstance(base, nn.Linear):
            raise TypeError(f"{OWNERS[target]}.{target} is a {type(base).__name__}, expected an unadapted nn.Linear")
        ranks = (lora.rank_global, lora.alpha_global, lora.rank_local, lora.alpha_local)
        setattr(parent, target, ChangedLinear(base) if whole else DualLoRALinear(base, *ranks, mix=plan.mix))
    if Role.NORM in plan.trained:
        for name in NORMS:
            setattr(block, name, ChangedNorm(getattr(block, name)))


def skeleton(job: JobConfig) -> DualLoRAModel:
    """Return the job's model without backbone weights or memory (on torch's meta device): names and shapes only."""
    with torch.device("meta"):
        classifier = CineMAClassifier(BackboneConfig.preset(job.backbone), n_classes=N_CLASSES)
        return DualLoRAModel(classifier, plan_of(job), job.train.seed)


def initial_global_state(job: JobConfig) -> dict[str, np.ndarray]:
    """Return what the server sends in round 0; needs no backbone weights."""
    model = skeleton(job)
    values = {name: value.numpy() for name, value in model.first_values(model.plan.sent, job.train.seed).items()}
    return as_payload(values, job)


def as_payload(values: Mapping[str, np.ndarray], job: JobConfig) -> dict[str, np.ndarray]:
    """Return values as they travel; what is too large for the job's dtype becomes infinite, which leaves no site."""
    with np.errstate(over="ignore"):
        return {name: value.astype(job.payload_dtype) for name, value in values.items()}
