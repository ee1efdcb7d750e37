"""One process at a time: a lock on a file or folder, which the system takes away however its holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(place: Path, busy: Exception | None = None) -> Iterator[None]:
    """Hold a file or a folder for this process inside the block.

    Args:
        place: a folder that is there, or a file, which is made for its owner only where there is none.
        busy: raised where another process holds it; None: wait until that lets go of it.

    Raises:
        OSError: it cannot be opened, or lies on a file system without locks.
    """
    how = os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(place, how, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            if busy is None:
                raise
            raise busy from None
        yield
    finally:
        os.close(descriptor)
