"""The startup kit of a site: closed by ``harden``, inspected by ``inspect_kit``. No nvflare is needed for either."""

from med_duallora.site_kit.channel import Channel
from med_duallora.site_kit.channels import inspect_kit
from med_duallora.site_kit.hardening import Change, harden
from med_duallora.site_kit.wanted import SERVER_CLASSES, SITE_CLASSES

__all__ = ["SERVER_CLASSES", "SITE_CLASSES", "Change", "Channel", "harden", "inspect_kit"]
