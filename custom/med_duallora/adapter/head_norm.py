"""What the classification heads read, brought to mean 0 and standard deviation 1 at each site.

A masked autoencoder's pooled features vary little from subject to subject beside their mean. A head on the plain
features hardly learns in a federation's few steps, and every step of an adapter moves all subjects alike. Masked
autoencoders are therefore probed behind a batch normalisation without affine parameters (He et al. 2022, arXiv
2111.06377, appendix A).
Here the statistics belong to the site: they are computed from its own training subjects, adapt to its scanner (as
private normalisation does in FedBN, arXiv 2102.07623), are kept in its state and never sent.

Where three of four subjects are diseased, the mean of all lies near the diseased, and a head whose bias had few steps
calls half of what lies beyond it healthy. For predictions features are therefore centred between the classes' means.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

MIN_PER_CLASS = 3
"""Subjects of a class whose mean says where the class is, and not where one person is."""
EPS = 1e-5
"""Added to variances, so that a constant feature stays finite."""
STATISTICS = ("mean", "scale")


class HeadNorm(nn.Module):
    """Standardisation without parameters: over the batch in training, by fitted statistics in evaluation.

    Args:
        n_features: length of a summary.
        active: whether it does anything; a plain CineMA head reads the features as they are.

    Until ``fit`` is called, evaluation changes nothing, not a bit.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_features: int, active: bool) -> None:
        super().__init__()
        self.active = active
        self.register_buffer("mean", torch.zeros(n_features), persistent=False)
        self.register_buffer("scale", torch.ones(n_features), persistent=False)

    def fit(self, summaries: Tensor, labels: Tensor | None = None) -> None:
        """Take the statistics for evaluation from summaries.

        Args:
            summaries: (n_subjects, n_features).
            labels: (n_subjects,), where they are known and shall count: features are then centred between the means of
                the classes; None, or fewer than ``MIN_PER_CLASS`` of one: on the mean of all.
        """
        if self.active:
            self.mean, self.scale = _statistics(summaries)
            classes = [] if labels is None else [summaries[labels == label] for label in (0, 1)]
            if classes and min(map(len, classes)) >= MIN_PER_CLASS:
                self.mean = torch.stack([members.mean(0) for members in classes]).mean(0)

    def statistics(self) -> dict[str, np.ndarray]:
        """Return copies of the fitted ``mean`` and ``scale`` (n_features,), float32; nothing where it does nothing."""
        if not self.active:
            return {}
        return {name: getattr(self, name).detach().to("cpu", copy=True).numpy() for name in STATISTICS}

    def use(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Take the statistics for evaluation from those that ``statistics`` once returned.

        Raises:
            ValueError: they are not of this head.
        """
        expected = set(STATISTICS) if self.active else set()
        if set(statistics) != expected or any(value.shape != tuple(self.mean.shape) for value in statistics.values()):
            raise ValueError("statistics of another head")
        for name, value in statistics.items():
            setattr(self, name, torch.from_numpy(np.array(value)).to(self.mean.device))

    def forward(self, summaries: Tensor) -> Tensor:
        """Standardise summaries (batch, n_features)."""
        if not self.active:
            return summaries
        mean, scale = _statistics(summaries) if self.training else (self.mean, self.scale)
        return (summaries - mean) / scale


def _statistics(summaries: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(summaries, dim=0, correction=0)
    return mean, torch.sqrt(variance + EPS)
