"""``med-duallora pretrain``: masked-autoencoder pre-training of a backbone on unlabelled volumes."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import above_zero, whole_number

if TYPE_CHECKING:
    from med_duallora.pretraining.data import VolumePool
    from med_duallora.pretraining.run import PretrainConfig

STATE_SUFFIX = ".run.safetensors"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "pretrain",
        help="pre-train a backbone as a masked autoencoder",
        description="Pre-train a CineMA backbone as a masked autoencoder (75 % of the patches hidden) on the ED and "
        "ES volumes of prepared cohorts; labels are not used. Writes a float16 checkpoint that the other "
        "commands read, a manifest (.json) and the loss curve (.png) beside it; an existing checkpoint or an "
        "interrupted run is never overwritten. The same arguments give the "
        "same weights on one machine with one thread count; an interrupted run continues with --resume.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a prepared cohort, or a folder of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write (.safetensors)")
    parser.add_argument(
        "--backbone", default="cinema-mini", metavar="NAME", help="backbone preset (default: %(default)s)"
    )
    _add_length_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=16, help="volumes per step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--mask-ratio", type=float, default=0.75, help="share of the patches that is hidden (default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        choices=("pair", "single"),
        default="pair",
        help="what is masked and reconstructed: ED and ES together, as the classifier sees them (default), or one of "
        "them as CineMA does; the classifier then repeats the first convolution and sees the sum of both",
    )
    parser.add_argument(
        "--motion-weight",
        type=float,
        default=5.0,
        help="weight in the loss of what differs between ED and ES (default: %(default)s)",
    )
    parser.add_argument("--norm-target", action="store_true", help="reconstruct patches of mean 0 and sd 1")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="number format of the linear layers (default: fp32)",
    )
    parser.add_argument(
        "--threads", type=whole_number(0, 1024), default=0, metavar="N", help="CPU threads (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of weights, order, views and masks (default: 0)"
    )
    parser.add_argument("--resume", action="store_true", help=f"continue the run kept in OUT{STATE_SUFFIX}")
    parser.add_argument(
        "--data-recipe",
        default="not given",
        metavar="TEXT",
        help="how the data were made, for the manifest; put no path of this machine into it",
    )
    parser.set_defaults(run=run)


def _add_length_arguments(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=above_zero(1e6), help="length of the run in passes over the subjects (default: 100)"
    )
    length.add_argument("--steps", type=whole_number(1, 10**9), help="length of the run in optimizer steps")
    length.add_argument(
        "--minutes", type=above_zero(1e6), help="length of the run in minutes, from a timing of a few steps"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import torch

    from med_duallora.errors import ConfigError
    from med_duallora.pretraining.data import VolumePool
    from med_duallora.pretraining.export import export
    from med_duallora.pretraining.run import pretrain

    if options.out.suffix != ".safetensors":
        raise ConfigError(f"--out {options.out} must end in .safetensors")
    if options.threads:
        torch.set_num_threads(options.threads)
    config = _config(options, n_steps=options.steps or 1)
    _check_out(options)
    pool = VolumePool.load(options.data, config.backbone)
    state_file = options.out.with_suffix(STATE_SUFFIX)
    config = _config(options, _n_steps(options, pool, state_file))
    state = pretrain(config, pool, state_file, options.resume, say=lambda line: print(line, flush=True))
    manifest = export(options.out, config, pool, state, options.data_recipe)
    state_file.unlink(missing_ok=True)
    n_bytes = options.out.stat().st_size
    print(f"{options.out}: {n_bytes / 1e6:.2f} MB, {manifest['n_parameters']['encoder']} encoder parameters")
    return 0


def _check_out(options: argparse.Namespace) -> None:
    """Find out before the work of hours whether its result can be written, and whether it would replace another's.

    Raises:
        InputError: there is a checkpoint, or an interrupted run that ``--resume`` was not given for.
        OSError: nothing can be written there.
    """
    from med_duallora.errors import InputError
    from med_duallora.support.files import check_writable

    check_writable(options.out.parent)
    if options.out.exists():
        raise InputError(f"{options.out} exists, and may have cost hours; move it away, or choose another --out")
    state_file = options.out.with_suffix(STATE_SUFFIX)
    if state_file.exists() and not options.resume:
        raise InputError(
            f"{state_file} holds an interrupted run: --resume continues it; to start over, remove it or choose "
            "another --out"
        )


def _config(options: argparse.Namespace, n_steps: int) -> "PretrainConfig":
    from med_duallora.pretraining.data import ViewConfig
    from med_duallora.pretraining.run import PretrainConfig

    names = ("batch_size", "lr", "mask_ratio", "norm_target", "motion_weight", "precision", "seed")
    values = {name: getattr(options, name) for name in names}
    return PretrainConfig(preset=options.backbone, n_steps=n_steps, views=ViewConfig(frames=options.frames), **values)


def _n_steps(options: argparse.Namespace, pool: "VolumePool", state_file: Path) -> int:
    """Return the length of the run in steps; a resumed run keeps the length it started with."""
    from med_duallora.pretraining.run import steps_for
    from med_duallora.pretraining.state import planned_steps

    if options.steps is not None:
        return int(options.steps)
    if options.resume:
        planned: int = planned_steps(state_file)
        return planned
    if options.minutes is not None:
        n_steps: int = steps_for(_config(options, n_steps=1), pool, options.minutes)
        print(f"{options.minutes:g} minutes are {n_steps} steps here", file=sys.stderr)
        return n_steps
    n_epochs = 100.0 if options.epochs is None else options.epochs
    return max(1, math.ceil(n_epochs * len(pool.volumes) / int(options.batch_size)))
