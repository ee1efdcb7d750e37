"""One thing that keeps a site from running a job."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a site from running a job.

    Args:
        key: the setting of the site configuration that it is about.
        what: what is wrong, with the value; may quote paths.
        todo: what to do about it.
        is_private: the text speaks of the site's subjects, so it is for the site's own terminal and for no log.
    """

    key: str
    what: str
    todo: str
    is_private: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.todo}"

    def in_log(self) -> str:
        """Return what a log may say; paths are still in it."""
        if not self.is_private:
            return str(self)
        return f"{self.key} names a cohort that cannot be trained on: med-duallora preflight says why"
