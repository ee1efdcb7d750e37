"""How to choose a setting. Every figure is computed from the code; none is typed."""

from collections.abc import Iterable
from dataclasses import replace

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.plan import AdapterPlan
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role
from med_duallora.backbone.config import PRESETS, BackboneConfig
from med_duallora.settings.config import JobConfig, SiteConfig

RANKS = (1, 2, 4, 8, 16, 32)
SHOWN_PRESETS = ("cinema-mini", "cinema-base")
MIB = 2**20

WEIGHTS = (
    "The package ships weights for `cinema-mini`, which were pre-trained on synthetic phantoms. For "
    "`cinema-base`, CineMA's authors publish their weights on Hugging Face, in the repository "
    "[mathpluscode/CineMA](https://huggingface.co/mathpluscode/CineMA) under the MIT licence: the file "
    "`pretrained/cinema.safetensors` is the pre-trained backbone. Every site keeps a copy and names it in "
    "`backbone_checkpoint` of its configuration (`--backbone-checkpoint FILE` for a simulation or a rehearsal); "
    "the job names its hash in `backbone_sha256`, so that all sites train with the same file."
)
METHOD = "The methods. " + " ".join(f"`{name}`: {method.summary}." for name, method in METHODS.items())
PEERS = (
    "Each federated method but the first, which is the package's own, is a ready job under `jobs/baselines/`. A site's "
    "weight is its number of training subjects (`weighting`), whatever a paper's own code does. Methods with two parts "
    "of a round share its steps between them, so that all methods take as many. `train.local_lr_factor` and "
    "`train.local_weight_decay_factor` act on what stays in every method that sends something; the ready jobs set both "
    "to 1, because no paper of a peer has a slower part. Where the head stays, a method with two parts trains it in "
    "both. In every table of scores `both` is the model that the method predicts with: of `ditto-lora` the personal "
    "adapter, of `feddpa` half of each. With the default settings:"
)
FULL = (
    "`fedavg-full` is the full-rank counterpart of `fedavg-lora`: the same blocks, the same frozen and cached trunk "
    "before them, but all weights, biases and norms of these blocks instead of low-rank factors. With `lora.n_blocks` "
    "as large as the backbone has blocks, all blocks train; the stem stays frozen. What trains and is sent are "
    "differences to the frozen weights, which start at zero: a difference's gradient is that of the weight, and "
    "weight decay draws back to the frozen backbone, not to zero. `lora.targets` and alpha do nothing; the rank is "
    "only that of training alone, which a site compares with. The `train.lr` that is best for factors need not be the "
    "best for whole weights: tune it for each. A payload can carry far more about single patients than one of low "
    "rank, so a site that accepts such a job sets `policy.max_rank` to at least the width in the table of backbones, "
    "and `policy.head_leaves` to `all`."
)
AGGREGATION = "The rules. " + " ".join(f"`{name}`: {rule.summary}." for name, rule in AGGREGATIONS.items())
EXACTNESS = (
    "Averaging the factors drops a part of the mean of the products, which the report shows in every round as the "
    "aggregation residual ([measured](performance.md#what-averaging-the-factors-loses)). No rule here sends this "
    "part to the sites as a frozen matrix, as FedEx-LoRA does, which adds it to the frozen weights (Singhal et al. "
    "2024, arXiv 2410.09432). It would be as exact as `alternate`, but its rank grows in every round until it is as "
    "large as the layers themselves; every site, every saved adapter and every prediction would have to carry it; "
    "and it must come down and never go up, while the egress contract that a site agrees to is one list of tensors "
    "for both directions. Take `alternate` where nothing may be lost, or `svd` where both factors should train in "
    "every round."
)
PART_OF_THE_RANK = (
    "Sites need not train alike. With `rank_limit` of its own configuration a site trains the first components of "
    "the global adapter only, for example because it has few subjects. With `svd` and `geometric-median` these are "
    "the strongest ones; with any other rule they are not, so that a site with a limit below the job's rank refuses "
    "the job, and so it does with a method that pulls a second adapter towards the whole global one (`ditto-lora`). "
    "All components act while it trains, and in every score and prediction. What it does not train it sends back as "
    "it came: its contribution is the incoming adapter with its own changes, and counts as that. Sent as zeros, as "
    "published schemes pad adapters of a lower rank, these components would fade from the mean in every round, and "
    "the server's screening would take their absence for an update, many times as long as all others. Scale (`alpha "
    "/ rank`), payload and contract are the job's at every site: a limit makes no message shorter."
)
RANK = (
    "The rank decides how much the global adapter can express, how many bytes leave a site in each round, and how "
    "much it could carry about single patients. Start with the default. Lower it where a site has few training "
    "subjects or its policy asks for it (`policy.max_rank`); raise it only if the validation score still rises "
    "with it. Keep `alpha / rank` the same when you change the rank, or change the learning rate as well, because "
    "it scales the adapter's output. A local rank of 0 leaves only the shared adapter; a global rank of 0 is "
    "refused, because nothing would be shared."
)
ROUNDS = (
    "`train.n_rounds` is the total of the whole training, because the learning-rate schedule spans all rounds. "
    "The report shows training loss and validation score by round: if the score still rises at the end, plan more "
    "rounds; if it falls while the training loss goes down, plan fewer rounds, fewer local epochs, or a lower "
    "learning rate. More local epochs save communication, but the sites drift apart and averaging loses more (the "
    "report shows it as the residual). A training that was interrupted continues with `--resume-from`; to plan "
    "one in parts, set `workflow.stop_round`."
)
COMPUTE = (
    "Only the last `lora.n_blocks` blocks are trained; everything before them is computed once per subject and "
    "view and kept in the feature cache. So most of the work is done in the first round; a GPU helps most there, "
    "and with `cinema-base`. `device=auto` takes the first GPU where there is one. If memory runs out, lower "
    "`train.batch_size` first. If the cache does not fit on the disk, lower `train.n_views` or set "
    "`train.feature_dtype=float16`, which halves it; with a cache that is too small the training still works, but "
    "computes features again in every round."
)

BY_KEY = {
    "method": METHOD,
    "aggregation": AGGREGATION,
    "lora.rank_global": RANK,
    "lora.rank_local": RANK,
    "lora.alpha_global": RANK,
    "lora.alpha_local": RANK,
    "policy.max_rank": RANK,
    "rank_limit": PART_OF_THE_RANK,
    "train.n_rounds": ROUNDS,
    "train.local_epochs": ROUNDS,
    "workflow.stop_round": ROUNDS,
    "device": COMPUTE,
    "train.batch_size": COMPUTE,
    "train.n_views": COMPUTE,
    "train.feature_dtype": COMPUTE,
    "cache_budget_mb": COMPUTE,
    "backbone": WEIGHTS,
    "backbone_sha256": WEIGHTS,
    "backbone_checkpoint": WEIGHTS,
}
"""Guidance by the settings that it is about."""


def payload_bytes(backbone: str, rank: int, method: str = JobConfig.method) -> int:
    """Return the bytes of the tensors that a site sends in each round, for the default job with a method."""
    from med_duallora.boundary.contract import (
        EgressContract,  # brings torch, which a text of this module needs not wait for
    )

    job = JobConfig(backbone=backbone, method=method)
    return EgressContract.for_job(replace(job, lora=replace(job.lora, rank_global=rank))).tensor_bytes


def cache_bytes(config: BackboneConfig, n_views: int) -> int:
    """Return the bytes of one subject's features in the cache (float32): a token sequence and the stem's skip term."""
    n_values = (1 + 2 * config.n_tokens) * config.embed_dim
    return (1 + n_views) * 4 * n_values


def method_table() -> list[list[str]]:
    """Return a row per method: what leaves a site, what is trained and stays, the parts of a round, KiB per round."""
    header = ["method", "leaves a site", "is trained and stays", "a round", f"KiB per round ({SHOWN_PRESETS[0]})"]
    return [header, *(method_row(JobConfig(method=name, backbone=SHOWN_PRESETS[0])) for name in METHODS)]


def method_row(job: JobConfig) -> list[str]:
    """Return a job's row in ``method_table``."""
    plan = plan_of(job)
    parts = [_part(plan, index) for index in range(len(plan.phases))]
    size = f"{payload_bytes(job.backbone, job.lora.rank_global, job.method) / 1024:,.0f}"
    return [job.method, _names(plan, plan.sent), _names(plan, plan.kept), "; ".join(parts), size]


def _part(plan: AdapterPlan, index: int) -> str:
    """Return a phase in words: its share, what trains, and which adapter is switched off."""
    phase, trained = plan.phases[index], _names(plan, plan.of_phase(index))
    if len(plan.phases) == 1:
        return "all at once"
    off = [name for name, acts in (("global", phase.global_acts), ("local", phase.local_acts)) if not acts]
    return f"{phase.share:.0%} {trained}" + (f", the {off[0]} one off" if off else "")


def _names(plan: AdapterPlan, roles: Iterable[Role]) -> str:
    """Return roles in words; an adapter that the method does not have is none."""
    left, found = set(roles), []
    for adapter, name, rank in ((GLOBAL, "global", plan.lora.rank_global), (LOCAL, "local", plan.lora.rank_local)):
        if adapter <= left and rank:
            found.append(f"{name} adapter" + (" with the head's weights" if _has_head(plan, adapter) else ""))
        found += sorted(role.value for role in left & adapter) if not adapter <= left else []
        left -= adapter
    found += ["head" if role is Role.HEAD else role.value for role in sorted(left)]
    if plan.lora.head_policy == "shared":
        found = ["bias of the head" if name == "head" else name for name in found]
    return ", ".join(found) or "-"


def _has_head(plan: AdapterPlan, adapter: frozenset[Role]) -> bool:
    return adapter == GLOBAL and plan.lora.head_policy == "shared"


def rank_table() -> list[list[str]]:
    """Return KiB that a site sends per round: a row per rank, a column per preset."""
    header = ["lora.rank_global", *(f"{name}: KiB per round" for name in SHOWN_PRESETS)]
    rows = [[str(rank), *(f"{payload_bytes(name, rank) / 1024:,.0f}" for name in SHOWN_PRESETS)] for rank in RANKS]
    return [header, *rows]


def memory_table() -> list[list[str]]:
    """Return size and cache need of each preset."""
    n_views = JobConfig().train.n_views
    budget = SiteConfig.cache_budget_mb
    header = ["backbone", "input voxels", "tokens", "width", "blocks"]
    header += [f"feature cache per subject, MiB ({1 + n_views} views, float32)", f"subjects in {budget} MiB of cache"]
    rows = []
    for name in SHOWN_PRESETS:
        config = PRESETS[name]
        per_subject = cache_bytes(config, n_views)
        shape = [" x ".join(map(str, config.image_size)), config.n_tokens, config.embed_dim, config.depth]
        rows.append([name, *map(str, shape), f"{per_subject / MIB:.1f}", str(budget * MIB // per_subject)])
    return [header, *rows]
