"""Startup kits and the jobs that meet them; no nvflare is needed.

``install`` prepares the kits of server and sites, ``harden`` closes a site's kit and ``inspect_kit`` looks at it;
``job_check`` says what a job asks of a site, and ``job_trial`` tries the job with a cohort.
"""

from med_duallora.site_kit.channel import Channel
from med_duallora.site_kit.channels import inspect_kit
from med_duallora.site_kit.hardening import Change, harden
from med_duallora.site_kit.wanted import SERVER_CLASSES, SITE_CLASSES

__all__ = ["SERVER_CLASSES", "SITE_CLASSES", "Change", "Channel", "harden", "inspect_kit"]
