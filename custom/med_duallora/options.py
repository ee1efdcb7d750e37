"""Options that several commands share."""

import argparse
from pathlib import Path


def add_resume_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--resume-from``."""
    parser.add_argument(
        "--resume-from",
        type=Path,
        metavar="ADAPTER",
        help="go on with the training that this global adapter (adapter_last.safetensors with its .json) belongs to, "
        "from the round after it, with the sites' local states. A known job takes all settings from the adapter's "
        "manifest. train.n_rounds is the total of the whole training, not what is left: the learning-rate schedule "
        "spans it. It alone may be changed; 2 + 2 rounds are 4 rounds bit for bit only if it is not",
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
