"""The geometric median of the sites' adapters, found from inner products alone.

A geometric median is the point with the smallest weighted sum of distances to all contributions. A single site pulls at
it with the strength of its weight, however far away it is, and sites with less than half of all weights cannot move it
without bound. It is a weighted mean whose weights are divided by each contribution's distance from it, so that a rule
needs other weights only. Sources: Weiszfeld's iteration (Weiszfeld 1937), for federated learning in Pillutla, Kakade
and Harchaoui, "Robust Aggregation for Federated Learning" (RFA, arXiv 1912.13445).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Tensors = Mapping[str, np.ndarray]
Pairs = Sequence[tuple[str, str]]
SMOOTHING = 1e-6
"""Shortest distance that counts, as a fraction of the longest one between two contributions (RFA's nu)."""
BLOCK_BYTES = 8 * 2**20
"""Contributions of so many bytes (at least one) stay in memory together; the others are read once for all of them."""
CHANGE = 1e-12
MAX_STEPS = 1000


def geometric_median(contributions: Sequence[Tensors], weights: Sequence[float], pairs: Pairs) -> list[float]:
    """Return the weights with which the mean of the products B A is their geometric median.

    A contribution is one vector: the products of all its pairs, and its other tensors as they are.

    Args:
        contributions: every site's tensors; they are read several times, at most one beside those of ``BLOCK_BYTES``.
        weights: of each, above 0.
        pairs: the factors that belong together, as (B, A).

    Returns:
        New weights with the same sum.
    """
    return weiszfeld(gram(contributions, pairs), weights)


def gram(contributions: Sequence[Tensors], pairs: Pairs) -> np.ndarray:
    """Return the inner products of all contributions, (n, n), without forming a product B A."""
    found = np.zeros((len(contributions), len(contributions)))
    first = 0
    while first < len(contributions):
        rows = _block(contributions, first)
        for column in range(first + len(rows)):
            other = rows[column - first] if column >= first else _all_wide(contributions[column])
            for row, one in enumerate(rows, first):
                if row >= column:
                    found[row, column] = found[column, row] = inner(one, other, pairs)
        first += len(rows)
    return found


def _block(contributions: Sequence[Tensors], first: int) -> list[dict[str, np.ndarray]]:
    """Return the contributions from a place on, in float64, as many as may be in memory together."""
    block = [_all_wide(contributions[first])]
    n_most = max(1, BLOCK_BYTES // max(1, sum(value.nbytes for value in block[0].values())))
    return block + [_all_wide(contributions[i]) for i in range(first + 1, min(first + n_most, len(contributions)))]


def inner(one: Tensors, other: Tensors, pairs: Pairs) -> float:
    """Return the inner product of two contributions: <B1 A1, B2 A2> is the sum of (B1' B2) * (A1 A2')."""
    paired = {name for pair in pairs for name in pair}
    products = [np.vdot(_wide(one[b]).T @ _wide(other[b]), _wide(one[a]) @ _wide(other[a]).T) for b, a in pairs]
    rest = [np.vdot(_wide(one[name]), _wide(other[name])) for name in one if name not in paired]
    return math.fsum([*products, *rest])


def weiszfeld(products: np.ndarray, weights: Sequence[float]) -> list[float]:
    """Return the weights of the geometric median, from the inner products (n, n) of n points and their weights."""
    given = np.asarray(weights, dtype=np.float64)
    lengths = np.diag(products)
    apart = np.sqrt(np.maximum(lengths[:, None] - 2 * products + lengths, 0))
    shortest = SMOOTHING * float(apart.max(initial=0.0))
    shares = given / given.sum()
    for _ in range(MAX_STEPS if shortest else 0):
        squares = lengths - 2 * products @ shares + shares @ products @ shares
        pulls = given / np.maximum(np.sqrt(np.maximum(squares, 0)), shortest)
        before, shares = shares, pulls / pulls.sum()
        if np.abs(shares - before).max() < CHANGE:
            break
    return [float(weight) for weight in shares * given.sum()]


def _wide(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)


def _all_wide(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: _wide(value) for name, value in tensors.items()}
