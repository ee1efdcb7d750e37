"""The sites' local states of an earlier run, which a simulation that goes on from its adapter begins with."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.errors import ConfigError
from med_duallora.flare.local.workspace import RUN_FILE
from med_duallora.server.rundir import STATES
from med_duallora.support.private import private_folder

if TYPE_CHECKING:
    from med_duallora.flare.local.simulation import Simulation


def states_of(adapter: Path) -> Path:
    """Return the local states that belong to an adapter: those of the workspace it lies in.

    Raises:
        ConfigError: it lies in no workspace.
    """
    for folder in adapter.resolve().parents:
        if (folder / RUN_FILE).is_file():
            return folder / STATES
    raise ConfigError(
        f"{adapter} lies in no workspace of simulate, so the sites' local states are not known; name the folder that "
        "holds them (one folder per site) with --states"
    )


def sites_without_state(simulation: "Simulation") -> list[str]:
    """Return the sites whose local adapter starts anew although the job goes on from a saved global one."""
    return [site for site, earlier in _earlier_states(simulation).items() if not earlier.is_dir()]


def take_states(simulation: "Simulation") -> None:
    """Copy the experiment's local states from the earlier workspace, which stays as it is."""
    for site, earlier in _earlier_states(simulation).items():
        if earlier.is_dir():
            state_dir = simulation.site_config(site).state_dir
            private_folder(state_dir)
            shutil.copytree(earlier, state_dir / earlier.name, symlinks=True)  # a link is refused when it is read


def _earlier_states(simulation: "Simulation") -> dict[str, Path]:
    """Return where the experiment's local states of every site are to be taken from."""
    states, experiment = simulation.states, simulation.spec.job.experiment
    return {site: states / site / experiment for site in simulation.sites} if states else {}
