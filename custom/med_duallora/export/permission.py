"""Whether a site's own model may be written to a file for other tools, and the line of the ledger about it.

Such a file holds what no job can ask for: the local adapter, the head and its statistics. Nothing sends it, but whoever
has it can carry it away. So it is made only where the site's policy says so, or where whoever asks says that it stays;
either way, and also where it is refused, the site's ledger has a line.
"""

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.boundary.ledger import site_ledger
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry, described
from med_duallora.errors import ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.support.digest import content_digest

FLAG = "--stays-at-site"
TASK = "export"


def permit(site: str, config: SiteConfig, network: DualLoRAModel, form: str, stays_at_site: bool) -> None:
    """Let a site's own model be written, or refuse; the line of the ledger comes first.

    Args:
        site: whose model it is.
        config: the site's configuration, with its policy and ledger.
        network: what will be written; the line describes what of it the site never sends.
        form: of the file, as the ledger names it, such as ``merged checkpoint``.
        stays_at_site: whoever asks says that the file stays at the site.

    Raises:
        ConfigError: neither the policy nor the flag allows it.
        LedgerError: the ledger cannot be written, or was replaced or cut; nothing may be written then.
    """
    agreed = stays_at_site or config.policy.model_leaves
    kept = {**network.values(network.plan.kept), **network.head_norm.statistics()}
    why = FLAG if stays_at_site else "policy.model_leaves is true"
    entry = Entry(
        job="",
        site=site,
        task=TASK,
        kind="export",
        verdict=ALLOWED if agreed else BLOCKED,
        reason=f"{form}: {why}" if agreed else f"{form}: policy.model_leaves is false, and {FLAG} was not given",
        tensors=described(kept),
        n_bytes=sum(value.nbytes for value in kept.values()),
        sha256=content_digest(kept, {"form": form}),
    )
    site_ledger(config).append(entry)
    if not agreed:
        raise ConfigError(
            f"the {form} would hold what never leaves site {site}: its local adapter, its head and the head's "
            f"statistics. Give {FLAG} where the file stays at the site, or set policy.model_leaves in the site "
            "configuration",
            key="policy.model_leaves",
            value=False,
            limit="true",
        )
