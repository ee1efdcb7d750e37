"""What each adapter is worth in a trained model: sizes of their updates, and how far they say the same."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from med_duallora.adapter.changed import ChangedLinear
from med_duallora.adapter.lora import DualLoRALinear


@dataclass(frozen=True)
class Attribution:
    """The adapters of one site's model, over all adapted layers.

    Args:
        norm_global: Frobenius norm of the global adapter's weight update, scale included, or of the change of whole
            weights; biases and norms are not in it.
        norm_local: likewise of the local one.
        angle: mean of the principal angles between what the two updates can put out (their column spaces), in degrees:
            90 where neither repeats the other, 0 where the smaller one lies within the larger; NaN without both.
    """

    norm_global: float
    norm_local: float
    angle: float


def attribution(modules: Iterable[nn.Module]) -> Attribution:
    """Return norms and angles of the adapted linear layers among modules."""
    square_global = square_local = 0.0
    angles: list[float] = []
    for layer in modules:
        if isinstance(layer, ChangedLinear):
            square_global += float(layer.weight_change.detach().double().square().sum())
        if not isinstance(layer, DualLoRALinear):
            continue
        ours = update(layer.global_b, layer.global_a, layer.scale_global)
        own = update(layer.local_b, layer.local_a, layer.scale_local)
        square_global += 0.0 if ours is None else float((ours**2).sum())
        square_local += 0.0 if own is None else float((own**2).sum())
        if ours is not None and own is not None:
            angles += principal_angles(ours, own).tolist()
    return Attribution(square_global**0.5, square_local**0.5, float(np.mean(angles)) if angles else float("nan"))


def update(b: torch.Tensor | None, a: torch.Tensor | None, scale: float) -> np.ndarray | None:
    """Return the weight update scale * B A (out, in) of a pair of factors; None without one."""
    if a is None or b is None:
        return None
    found: np.ndarray = (scale * (b.detach().double() @ a.detach().double())).cpu().numpy()
    return found


def principal_angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the principal angles in degrees between the column spaces of two matrices (n, m), smallest first.

    Directions below a thousandth of a matrix's largest singular value do not count; an update of zeros has none.
    """
    bases = []
    for matrix in (one, other):
        left, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
        bases.append(left[:, sizes > 1e-3 * sizes[0]] if sizes[0] > 0 else left[:, :0])
    if not all(basis.shape[1] for basis in bases):
        return np.zeros(0)
    cosines = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    angles: np.ndarray = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return angles
