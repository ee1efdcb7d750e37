"""How to choose a setting. Every figure is computed from the code; none is typed."""

from dataclasses import replace

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
    "lora.rank_global": RANK,
    "lora.rank_local": RANK,
    "lora.alpha_global": RANK,
    "lora.alpha_local": RANK,
    "policy.max_rank": RANK,
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


def payload_bytes(backbone: str, rank: int) -> int:
    """Return the bytes of the global adapter's tensors, which a site sends in each round, for the default job."""
    from med_duallora.boundary.contract import (
        EgressContract,  # brings torch, which a text of this module needs not wait for
    )

    job = JobConfig(backbone=backbone)
    return EgressContract.for_job(replace(job, lora=replace(job.lora, rank_global=rank))).tensor_bytes


def cache_bytes(config: BackboneConfig, n_views: int) -> int:
    """Return the bytes of one subject's features in the cache (float32): a token sequence and the stem's skip term."""
    n_values = (1 + 2 * config.n_tokens) * config.embed_dim
    return (1 + n_views) * 4 * n_values


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
