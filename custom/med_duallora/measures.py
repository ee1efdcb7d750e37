"""Every number that a run computes and shows, in one table."""

METRIC_RANGES = {
    "balanced_accuracy": (0.0, 1.0),
    "sensitivity": (0.0, 1.0),
    "specificity": (0.0, 1.0),
    "auroc": (0.0, 1.0),
    "mcc": (-1.0, 1.0),
}
VARIANTS = {"global": (True, False), "local": (False, True), "both": (True, True)}
"""Which adapters (global, local) an evaluation of the trained model uses."""
COUNT = (0.0, 1e9)
COUNTS = frozenset({"n_subjects", "n_steps", "n_positive", "n_negative", "cache_hits", "cache_misses"})
"""Metrics that are whole numbers and therefore not rounded."""
TRAIN_METRICS = {
    "train_loss": (0.0, 1e4),
    "val_loss": (0.0, 1e4),
    "val_balanced_accuracy": (0.0, 1.0),
    "n_subjects": COUNT,
    "n_steps": COUNT,
    "seconds": (0.0, 1e7),
    "cache_hits": COUNT,
    "cache_misses": COUNT,
}
"""Metrics of a train task: name -> (lowest, highest)."""
INITIAL_METRICS = ("val_loss", "val_balanced_accuracy")
"""Those among them that speak of the incoming global adapter, before training."""
STATISTICS = {
    "round": (0.0, 1e6),
    "steps_per_second": (0.0, 1e9),
    "payload_bytes": (0.0, 1e12),
    "peak_memory_mb": (0.0, 1e9),
}
"""What a site may answer to the console besides its metrics: name -> (lowest, highest)."""
STATISTIC_TEXTS = {
    "phase": ("starting", "not initialised", "waiting", "validation", "training", "evaluation"),
    "device": ("cpu", "cuda", *(f"cuda:{index}" for index in range(16))),
}
"""Texts that a site may answer to the console: name -> every allowed text."""
TAGS = {
    "train_loss": "train/loss",
    "n_subjects": "train/subjects",
    "n_steps": "train/steps",
    "val_loss": "validation/loss",
    "val_balanced_accuracy": "validation/balanced_accuracy",
    "seconds": "round/seconds",
    "cache_hits": "cache/hits",
    "cache_misses": "cache/misses",
    "n_contributions": "round/contributions",
    "n_refused": "round/refusals",
    "payload_bytes_max": "round/payload_bytes_max",
    "residual": "round/aggregation_residual",
}
"""Our name of a number -> the tag under which TensorBoard draws it; the part before the slash groups the curves."""
AVERAGED = ("train_loss", "val_loss", "val_balanced_accuracy")
"""Metrics of which the server shows the mean over the sites that gave them."""


def evaluation_metrics() -> dict[str, tuple[float, float]]:
    """Return the allowed metrics of a validate task: ``<variant>.<metric>`` and the counts behind them."""
    variants = ("backbone", *VARIANTS)
    scores = {f"{variant}.{metric}": limits for variant in variants for metric, limits in METRIC_RANGES.items()}
    return {**scores, "n_subjects": COUNT, "n_positive": COUNT, "n_negative": COUNT}


def split_of(metric: str) -> str | None:
    """Return the split whose subjects a metric speaks of; None for counts of work, which speak of no subject."""
    if metric == "train_loss":
        return "train"
    if metric.startswith("val_"):
        return "val"
    if "." in metric or metric in ("n_positive", "n_negative"):
        return "test"
    return None


def tag_of(name: str) -> str:
    """Return TensorBoard's tag of a number; ``<variant>.<metric>`` of the evaluation stands in the group test."""
    return TAGS.get(name) or "test/" + name.replace(".", "/")
