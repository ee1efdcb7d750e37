"""Options that several commands share."""

import argparse
from pathlib import Path


def add_resume_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resume-from``."""
    parser.add_argument(
        "--resume-from",
        type=Path,
        metavar="ADAPTER",
        help="continue the training that this global adapter (adapter_last.safetensors with its .json) belongs to, "
        "from the round after it, with the sites' local states. A known job takes all settings from the adapter's "
        "manifest. train.n_rounds is the total of the whole training, not the rounds that are left, because the "
        "learning-rate schedule spans all of them. No other setting may be changed. With the same total, 2 + 2 rounds "
        "give bit for bit what 4 rounds give (on one CPU with one number of threads)",
    )


def add_site_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--site-set``."""
    parser.add_argument(
        "--site-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of every site's configuration, e.g. device=cpu, n_threads=2 or policy.min_subjects=10; "
        "repeatable",
    )
