"""The secret of a site: made once, kept in its state directory, never sent; it seals the feature cache."""

import logging
import secrets
import stat
from pathlib import Path

from med_duallora.errors import StateError
from med_duallora.support.files import atomic_path
from med_duallora.support.locks import locked
from med_duallora.support.private import OTHERS, claim, open_own, private_folder

logger = logging.getLogger(__name__)

SECRET_FILE = "site.secret"  # noqa: S105  the name of the file
N_BYTES = 32


def site_secret(state_dir: Path) -> bytes:
    """Return a site's secret, 32 bytes; it is made where there is none yet.

    One that is damaged, or that other accounts may have read, is replaced, and what it sealed is computed again.

    Raises:
        StateError: it can be neither read nor made, is a link, or belongs to another account.
    """
    path = state_dir / SECRET_FILE
    try:
        private_folder(state_dir)
        was_open = path.exists() and bool(stat.S_IMODE(path.lstat().st_mode) & OTHERS)
        with locked(path):
            claim(path)
            found = _read(path)
            if was_open or len(found) != N_BYTES:
                if found:
                    logger.warning("the site's secret was damaged or readable by other accounts: a new one was made")
                write_secret(path, secrets.token_bytes(N_BYTES))
            return _read(path)
    except OSError as error:
        raise StateError(
            f"the site's secret {SECRET_FILE} in state_dir cannot be used ({error.strerror or error})"
        ) from error


def write_secret(path: Path, secret: bytes) -> None:
    """Write a secret, mode 0600, atomically."""
    with atomic_path(path, 0o600) as partial:
        partial.write_bytes(secret)


def _read(path: Path) -> bytes:
    with open_own(path) as stream:
        return stream.read(N_BYTES + 1)
