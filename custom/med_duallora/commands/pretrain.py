"""``med-duallora pretrain``: pre-training of a backbone, as a masked autoencoder or on the anatomy of phantoms."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from med_duallora.commands.options import above_zero, whole_number

if TYPE_CHECKING:
    from med_duallora.pretraining.anatomy import AnatomyConfig
    from med_duallora.pretraining.anatomy_pool import AnatomyPool
    from med_duallora.pretraining.data import VolumePool
    from med_duallora.pretraining.loop import Trainer
    from med_duallora.pretraining.run import PretrainConfig

    Config = PretrainConfig | AnatomyConfig
    Pool = VolumePool | AnatomyPool

MAE_DEFAULTS = {"batch_size": 16, "lr": 1e-3, "epochs": 100.0}
MAE_OPTIONS: dict[str, Any] = {"mask_ratio": 0.75, "frames": "pair", "motion_weight": 5.0, "norm_target": False}
ANATOMY_DEFAULTS = {"batch_size": 10, "lr": 5e-4, "epochs": 20.0}
STATE_SUFFIX = ".run.safetensors"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "pretrain",
        help="pre-train a backbone",
        description="Pre-train a CineMA backbone as a masked autoencoder (75 % of the patches hidden) on the ED and "
        "ES volumes of prepared cohorts; labels are not used. With --truth, train it to tell the volumes, ejection "
        "fractions, mass and wall of phantoms, and their label maps, from images of randomly changed appearance "
        "instead, most usefully from a masked autoencoder (--init). Writes a float16 checkpoint that the other "
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
    parser.add_argument("--batch-size", type=int, help="subjects per step (default: 16; with --truth 10)")
    parser.add_argument("--lr", type=float, help="peak learning rate (default: 0.001; with --truth 0.0005)")
    _add_anatomy_arguments(parser)
    _add_mae_arguments(parser)
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
        "--epochs",
        type=above_zero(1e6),
        help="length of the run in passes over the subjects (default: 100; with --truth 20)",
    )
    length.add_argument("--steps", type=whole_number(1, 10**9), help="length of the run in optimizer steps")
    length.add_argument(
        "--minutes",
        type=above_zero(1e6),
        help="length of the run in minutes, from a timing of a few steps; a resumed run keeps the one it has",
    )


def _add_anatomy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="train on anatomy: the table of true values (truth.csv) that `phantom` wrote with the subjects of DIR",
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="with --truth: checkpoint to start from, such as what a masked autoencoder left (default: random weights)",
    )
    parser.add_argument(
        "--map-weight",
        type=float,
        help="with --truth: weight of the label maps beside the values; 0: they are not read (default: 1)",
    )


def _add_mae_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("masked autoencoder", "only without --truth")
    group.add_argument("--mask-ratio", type=float, help="share of the patches that is hidden (default: 0.75)")
    group.add_argument(
        "--frames",
        choices=("pair", "single"),
        help="what is masked and reconstructed: ED and ES together, as the classifier sees them (default), or one of "
        "them as CineMA does; the classifier then repeats the first convolution and sees the sum of both",
    )
    group.add_argument(
        "--motion-weight", type=float, help="weight in the loss of what differs between ED and ES (default: 5)"
    )
    group.add_argument("--norm-target", action="store_const", const=True, help="reconstruct patches of mean 0 and sd 1")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import torch

    from med_duallora.errors import ConfigError
    from med_duallora.pretraining.export import export
    from med_duallora.pretraining.loop import finish

    if options.out.suffix != ".safetensors":
        raise ConfigError(f"--out {options.out} must end in .safetensors")
    if options.threads:
        torch.set_num_threads(options.threads)
    config = _config(options, n_steps=options.steps or 1)
    _check_out(options)
    pool = _pool(options, config)
    state_file = options.out.with_suffix(STATE_SUFFIX)
    config = _config(options, _n_steps(options, config, pool, state_file))
    trainer = _trainer(options, config, pool)
    state = finish(trainer, pool.content, state_file, options.resume, say=lambda line: print(line, flush=True))
    manifest = export(options.out, config, pool, state, options.data_recipe, init=options.init)
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
    from med_duallora.support.folders import check_writable

    check_writable(options.out.parent)
    if options.out.exists():
        raise InputError(f"{options.out} exists, and may have cost hours; move it away, or choose another --out")
    for suffix in (".json", ".png"):
        beside = options.out.with_suffix(suffix)
        if beside.exists() and not options.resume:
            raise InputError(f"{beside} exists, and {options.out.name} would replace it; choose another --out")
    state_file = options.out.with_suffix(STATE_SUFFIX)
    if state_file.exists() and not options.resume:
        raise InputError(
            f"{state_file} holds an interrupted run: --resume continues it; to start over, remove it or choose "
            "another --out"
        )


def _config(options: argparse.Namespace, n_steps: int) -> "Config":
    """Return the recipe of the objective that was asked for.

    Raises:
        ConfigError: a value is out of range.
        InputError: an option belongs to the other objective.
    """
    from med_duallora.errors import InputError
    from med_duallora.pretraining.anatomy import AnatomyConfig, hash_of
    from med_duallora.pretraining.data import ViewConfig
    from med_duallora.pretraining.run import PretrainConfig

    values = {"precision": options.precision, "seed": options.seed, "preset": options.backbone, "n_steps": n_steps}
    values |= {name: _chosen(options, name) for name in ("batch_size", "lr")}
    given = {name: getattr(options, name) for name in MAE_OPTIONS if getattr(options, name) is not None}
    if options.truth:
        if given:
            wrong = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{wrong}: of the masked autoencoder, but --truth trains on anatomy; leave one out")
        weight = {} if options.map_weight is None else {"map_weight": options.map_weight}
        return AnatomyConfig(**values, **weight, init_sha256=hash_of(options.init, options.backbone))
    for name in ("init", "map_weight"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is of a training on anatomy: it needs --truth")
    mae = MAE_OPTIONS | given
    return PretrainConfig(**values, views=ViewConfig(frames=mae.pop("frames")), **mae)


def _chosen(options: argparse.Namespace, name: str) -> float:
    """Return an option's value, or else the default of the objective."""
    value: float | None = getattr(options, name)
    return (ANATOMY_DEFAULTS if options.truth else MAE_DEFAULTS)[name] if value is None else value


def _pool(options: argparse.Namespace, config: "Config") -> "Pool":
    from med_duallora.pretraining.anatomy import AnatomyConfig
    from med_duallora.pretraining.anatomy_pool import AnatomyPool
    from med_duallora.pretraining.data import VolumePool

    if isinstance(config, AnatomyConfig):
        return AnatomyPool.load(options.data, options.truth, config.backbone, with_maps=config.map_weight > 0)
    return VolumePool.load(options.data, config.backbone)


def _trainer(options: argparse.Namespace, config: "Config", pool: "Pool") -> "Trainer":
    from med_duallora.pretraining.anatomy import AnatomyConfig, AnatomyTrainer
    from med_duallora.pretraining.anatomy_pool import AnatomyPool
    from med_duallora.pretraining.data import VolumePool
    from med_duallora.pretraining.run import MaeTrainer

    if isinstance(config, AnatomyConfig):
        assert isinstance(pool, AnatomyPool)
        return AnatomyTrainer(config, pool, options.init)
    assert isinstance(pool, VolumePool)
    return MaeTrainer(config, pool)


def _n_steps(options: argparse.Namespace, config: "Config", pool: "Pool", state_file: Path) -> int:
    """Return the length of the run in steps; a resumed run keeps the length it started with."""
    from med_duallora.pretraining.loop import steps_for
    from med_duallora.pretraining.state import planned_steps

    if options.steps is not None:
        return int(options.steps)
    if options.resume and options.epochs is None:
        planned: int = planned_steps(state_file)
        return planned
    if options.minutes is not None:
        n_steps: int = steps_for(_trainer(options, config, pool), options.minutes)
        print(f"{options.minutes:g} minutes are {n_steps} steps here", file=sys.stderr)
        return n_steps
    return max(1, math.ceil(_chosen(options, "epochs") * len(pool.volumes) / config.batch_size))
