"""A site that does not train: it scores the global adapters of a job on its own subjects and answers with scores alone.

Its local adapter stays at the start, where its product is zero, and it keeps no state. Where the job's head stays at
the sites, this site fits one to its own train split (``head``); a head that the sites share is used as it comes, with
the statistics of the train split.
"""

from collections.abc import Callable

import numpy as np

from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.site.baseline import backbone_probabilities
from med_duallora.site.head import fit_head, summaries_of
from med_duallora.site.model import State
from med_duallora.site.runtime import SiteRuntime


class EvaluatingSite(SiteRuntime):
    """A site at work that only evaluates: variants ``backbone`` and ``global``; see ``SiteRuntime``."""

    def _variants(self, global_state: State, should_stop: Callable[[], bool]) -> dict[str, np.ndarray]:
        self.model.start_from(global_state)  # also where this site trained before it changed its role
        network, source, settings = self.model.network, self.model.source, self.job.train
        train, test = self.train_subjects, self.cohort.split("test")
        found = {"backbone": backbone_probabilities(network, source, train, test, settings, should_stop=should_stop)}
        with network.using(True, False):
            if network.plan.lora.head_policy == "local":
                views = [
                    summaries_of(network, source, train, view, precision=settings.precision, should_stop=should_stop)
                    for view in range(settings.n_views + 1)
                ]
                fit_head(network, views, [subject.label for subject in train])
            else:
                self.model.fit_head(train, should_stop)
            found["global"] = self.model.predict(test, should_stop)
        return found


def site_at_work(site: str, job: JobConfig, config: SiteConfig) -> SiteRuntime:
    """Return the site at work in the role that its configuration gives it (raises: see ``SiteRuntime``)."""
    return (SiteRuntime if config.role == TRAIN else EvaluatingSite)(site, job, config)
