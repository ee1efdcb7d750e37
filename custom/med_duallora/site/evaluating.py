"""A site that does not train: it scores the global adapters of a job on its own subjects and answers with scores alone.

Its local adapter stays at the start, where its product is zero, and it keeps no state. Where the job's head stays at
the sites, this site fits one to its own train split (``head``); a head that the sites share is used as it comes, with
the statistics of the train split. The labels do not count in these: they are what a site without a training of its own
would use this model with.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.site.evaluated import EvaluatedSite
from med_duallora.site.head import fit_head, summaries_of
from med_duallora.site.model import State
from med_duallora.site.runtime import SiteRuntime
from med_duallora.site.variants import Split, backbone_said


class EvaluatingSite(SiteRuntime):
    """A site at work that only evaluates: variants ``backbone`` and ``global``; see ``SiteRuntime``."""

    def _compared(self, global_state: State, split: Split, kind: str, should_stop: Callable[[], bool]) -> EvaluatedSite:
        del kind  # of every adapter, all that this site can say is said
        self.model.start_from(global_state)  # also where this site trained before it changed its role
        network, source, precision = self.model.network, self.model.source, self.job.train.precision
        tested = replace(split, val=())  # it keeps no model, so that there is nothing to choose
        found = {"backbone": backbone_said(self.model, tested, should_stop)}
        with network.using(True, False):
            if network.plan.lora.head_policy == "local":
                views = [
                    summaries_of(network, source, split.train, view, precision=precision, should_stop=should_stop)
                    for view in range(self.job.train.n_views + 1)
                ]
                fit_head(network, views, [subject.label for subject in split.train])
            else:
                self.model.fit_head(split.train, should_stop, labelled=False)
            found["global"] = tested.said(partial(self.model.predict, should_stop=should_stop))
        return EvaluatedSite(tested, found)


def site_at_work(site: str, job: JobConfig, config: SiteConfig) -> SiteRuntime:
    """Return the site at work in the role that its configuration gives it (raises: see ``SiteRuntime``)."""
    return (SiteRuntime if config.role == TRAIN else EvaluatingSite)(site, job, config)
