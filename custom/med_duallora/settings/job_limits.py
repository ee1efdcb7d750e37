"""The range of every number of a job that a site accepts: one text each, such as ``1 <= train.n_rounds <= 200``."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
RANGE = re.compile(rf"({NUMBER}) *<= *([a-z_]+(?:\.[a-z_]+)*) *<= *({NUMBER})", re.ASCII)
ANY = "any"
"""Among the ranges: what has no range here is free, instead of in the range of ``JOB_LIMITS``."""
TEXT = "texts such as '1 <= train.n_rounds <= 500', each of another setting; 'any' frees all others"
JOB_LIMITS = (
    "0 <= lora.rank_global <= 256",
    "0.01 <= lora.alpha_global <= 512",
    "0 <= lora.rank_local <= 256",
    "0.01 <= lora.alpha_local <= 512",
    "1 <= lora.n_blocks <= 64",
    "1 <= train.n_rounds <= 200",
    "1 <= train.local_epochs <= 20",
    "1 <= train.batch_size <= 256",
    "1e-7 <= train.lr <= 0.1",
    "0 <= train.local_lr_factor <= 1",
    "0 <= train.min_lr <= 0.1",
    "0 <= train.warmup_fraction <= 0.5",
    "0 <= train.betas <= 0.9999",
    "0 <= train.weight_decay <= 1",
    "0 <= train.local_weight_decay_factor <= 100",
    "0 <= train.proximal <= 10",
    "1e-4 <= train.clip_norm <= 1000",
    "0 <= train.label_smoothing <= 0.5",
    "1 <= train.class_weight_threshold <= 1000",
    "0 <= train.n_views <= 32",
    "0 <= train.drop_path <= 0.5",
    "0 <= train.seed <= 2147483647",
    "0 <= augment.probability <= 1",
    "0.1 <= augment.gamma <= 10",
    "0 <= augment.rotation_degrees <= 180",
    "0 <= augment.shift_mm <= 50",
    "0 <= augment.scale <= 0.5",
)
"""What a site accepts unless it says otherwise: every job that trains sensibly, and none that works for weeks."""

Numbers = Mapping[str, tuple[float, ...]]


def are_limits(limits: Iterable[str]) -> bool:
    """Return whether texts are ranges, each of another setting and none of them empty; ``any`` may stand among them."""
    texts = [text for text in limits if text != ANY]
    try:
        ranges = list(_ranges(texts))
    except ValueError:
        return False
    ordered = all(math.isfinite(low) and math.isfinite(high) and low <= high for _, low, high in ranges)
    return ordered and len({name for name, _, _ in ranges}) == len(texts)


def _ranges(limits: Iterable[str]) -> Iterator[tuple[str, float, float]]:
    for text in limits:
        parts = RANGE.fullmatch(text)
        if parts is None:
            raise ValueError(text)
        yield parts[2], float(parts[1]), float(parts[3])


def numbers_of(settings: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[float, ...]]:
    """Return every number of a job's settings by its whole name; of a list of numbers, all of them."""
    found: dict[str, tuple[float, ...]] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{name}.")
        items = value if isinstance(value, list | tuple) else [value]
        numbers = tuple(item for item in items if isinstance(item, int | float) and not isinstance(item, bool))
        if numbers and len(numbers) == len(items):
            found[prefix + name] = numbers
    return found


def beyond(limits: Collection[str], numbers: Numbers) -> tuple[str, tuple[float, ...]] | None:
    """Return the first range that a job's numbers leave, and those numbers; no numbers where the job has none so named.

    Args:
        limits: ranges, see ``are_limits``; each takes the place of the one in ``JOB_LIMITS`` of the same setting.
        numbers: of the job, see ``numbers_of``.
    """
    texts = [text for text in limits if text != ANY]
    texts = texts if ANY in limits else [*JOB_LIMITS, *texts]
    ranges = {name: (text, low, high) for text, (name, low, high) in zip(texts, _ranges(texts), strict=True)}
    for name, (text, low, high) in ranges.items():
        given = numbers.get(name, ())
        if not given or not all(low <= number <= high for number in given):
            return text, given
    return None
