"""Whether a federation runs; imports little, so that a command on one that was stopped says so at once."""

from pathlib import Path

from med_duallora.errors import FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.record import Federation


def running(directory: Path) -> Federation:
    """Return the federation of a folder, whose server has to run.

    Raises:
        InputError: there is none.
        FederationError: its server does not run: FLARE's own session would wait for it, and then say less.
    """
    federation = Federation.read(directory)
    servers = [process for process in federation.processes if process.name == federation.server]
    if not any(processes.is_running(process, federation.identity) for process in servers):
        raise FederationError(
            f"the server of the federation in {directory} does not run; "
            f"`med-duallora federation up --workspace {directory} --data DIR` starts it"
        )
    return federation
