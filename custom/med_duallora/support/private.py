"""Files and folders that only the account of this process may use, and that no symbolic link stands for.

Everything that holds or is derived from patients goes through here, directly or by ``files.atomic_path``: modes do not
depend on the umask, missing folders are made for their owner only, and the last part of a path is never followed where
it is a link. A folder above may be one: ``/data`` may lead to ``/mnt/data``. Folders that were there keep their mode.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
OTHERS = 0o077
"""Every right of a group and of everybody else."""
OTHERS_WRITE = 0o022
LINK = "it is a symbolic link, which is not followed here; put the file or folder itself there"
FOREIGN = "it belongs to another account, which can change it; give it to the account that runs this (`chown`)"


def private_folder(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700; those that are there stay as they are.

    Raises:
        OSError: it cannot be made, or something else than a folder is there.
    """
    for place in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        try:
            place.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:  # another process made it meanwhile, or it is a link to nowhere
            continue
        place.chmod(PRIVATE_FOLDER)  # an umask can take rights from the owner as well
    folder.mkdir(exist_ok=True)


def close_folder(folder: Path) -> None:
    """Take a folder that this program made, and the files in it, from other accounts; what is not ours stays."""
    for place, mode in ((folder, PRIVATE_FOLDER), *((path, PRIVATE_FILE) for path in folder.iterdir())):
        status = place.lstat()
        own = status.st_uid == os.geteuid() and (stat.S_ISREG(status.st_mode) or place == folder)
        if own and status.st_mode & OTHERS:
            place.chmod(mode)


def refuse_link(place: Path) -> None:
    """Raise OSError where a path itself, not a folder above it, is a symbolic link."""
    if place.is_symlink():
        raise OSError(errno.ELOOP, LINK, str(place))


def open_own(path: Path) -> BinaryIO:
    """Open a file to read that is not a link.

    Raises:
        OSError: there is none, it cannot be read, or it is a link, a folder, a pipe or a device.
    """
    return os.fdopen(own_descriptor(path, os.O_RDONLY), "rb")


def own_size(path: Path) -> int:
    """Return a file's bytes, 0 where there is none (OSError: see ``open_own``)."""
    try:
        with open_own(path) as stream:
            return os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        return 0


def append_own(path: Path, data: bytes) -> None:
    """Append to a file that is not a link, made with mode 0600 where there is none, and wait for the disk.

    Raises:
        OSError: it cannot be written, or see ``open_own``.
    """
    with os.fdopen(own_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def claim(path: Path) -> int:
    """Take the right to write a file from other accounts, and return its former mode; 0 where nobody had it.

    Raises:
        OSError: the file belongs to another account, or see ``open_own``.
    """
    try:
        descriptor = own_descriptor(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, FOREIGN, str(path))
        mode = stat.S_IMODE(status.st_mode)
        if not mode & OTHERS_WRITE:
            return 0
        os.fchmod(descriptor, PRIVATE_FILE)
        return mode
    finally:
        os.close(descriptor)


def own_descriptor(path: Path, flags: int) -> int:
    """Open a regular file that is not a link, and return its descriptor; see ``open_own`` for what is raised.

    With ``os.O_CREAT`` a file that is not there is made with mode 0600.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = _created(path, flags) if flags & os.O_CREAT else None
        if descriptor is None:
            descriptor = os.open(path, flags & ~os.O_CREAT)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "it is a pipe or device", str(path))


def _created(path: Path, flags: int) -> int | None:
    """Make a file, and return its descriptor; None where something is there."""
    try:
        descriptor = os.open(path, flags | os.O_EXCL, PRIVATE_FILE)
    except FileExistsError:
        return None
    os.fchmod(descriptor, PRIVATE_FILE)  # an umask can take rights from the owner as well
    return descriptor
