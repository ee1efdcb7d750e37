"""One way by which bytes can leave a site."""

from dataclasses import dataclass

HARDEN = "run med-duallora site-kit --startup-kit on this kit"


@dataclass(frozen=True)
class Channel:
    """One way out of a site.

    Args:
        name: a few words.
        is_open: whether something that the site did not agree to could leave this way.
        evidence: what was found, and where.
        fix: what closes it; empty where it is closed.
        is_reported: whether FLARE reports facts about the machine this way, which no setting prevents.
    """

    name: str
    is_open: bool
    evidence: str
    fix: str = ""
    is_reported: bool = False

    @property
    def state(self) -> str:
        """Return ``OPEN``, ``reported`` or ``closed``."""
        return "OPEN" if self.is_open else "reported" if self.is_reported else "closed"
