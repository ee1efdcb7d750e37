"""Independent random streams: what one stream draws never depends on another, nor on the class."""

import numpy as np

STREAMS = ("anatomy", "body", "pose", "vendor", "texture", "noise")


def stream(seed: int, pool: int, index: int, name: str) -> np.random.Generator:
    """Return the generator of one subject's stream.

    Args:
        seed: the cohort's seed, at least 0.
        pool: which pool of subjects (a vendor of a preset); pools share no draws.
        index: the subject's number in its pool.
        name: one of ``STREAMS``.

    Raises:
        ValueError: ``name`` is not a stream.
    """
    if name not in STREAMS:
        raise ValueError(f"stream {name!r} is none of {', '.join(STREAMS)}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(pool, index, STREAMS.index(name))))


def truncated_normal(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
    """Draw one normal number and clip it to [low, high]: always one draw, so that streams stay in step."""
    return float(np.clip(mean + sd * rng.standard_normal(), low, high))
