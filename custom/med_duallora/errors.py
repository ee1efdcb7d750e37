"""Everything that can go wrong, in one tree.

MedDualLoRAError                 exit code 1: the work was understood but could not be done
├── InputError                   exit code 2: what the user gave is wrong; the message says what to change
│   ├── ConfigError              a job, site or backbone setting is unknown, of the wrong type or out of range
│   ├── CheckpointError          a backbone checkpoint is unreadable or does not fit the architecture
│   ├── CohortError              a raw or prepared cohort as a whole cannot be used
│   ├── ScanError                a scan that a model shall say something of cannot be read or prepared
│   ├── UnfitError               a site cannot run a job as it is set up; says every reason and what to do
│   ├── KitError                 a FLARE startup kit is of a kind or version that is not known; nothing was changed
│   └── ArtifactError            an adapter artefact or run directory is missing, damaged or of another kind
├── SubjectRefused               one subject cannot be prepared; carries the subject and the reason
├── StateError                   a site's local state is missing, damaged or belongs to another experiment
├── LedgerError                  a ledger is damaged or cannot be written; what it should record does not leave
├── EgressViolation              a payload is not exactly what the egress contract allows
├── AggregationError             a contribution or a round cannot be aggregated
├── FederationError              a process, site or job of a federation did not do what was asked of it
├── TrainingDiverged             a loss or gradient is not a finite number; the last saved state is intact
└── TrainingAborted              the federation asked to stop; the last saved state is intact
"""

MAX_SHOWN = 60


def shown(value: object) -> str:
    """Return a value as a message quotes it: whole where it is short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class MedDualLoRAError(Exception):
    """Base of all errors this package raises on purpose; ``exit_code`` is the command line's."""

    exit_code = 1


class InputError(MedDualLoRAError):
    """Bad usage or bad input."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or out of range.

    Args:
        message: the whole sentence.
        key: whole name of the setting that is at fault, such as ``"train.lr"``; empty where it is not one setting.
        value: what it is set to.
        limit: completes "it must be ..."; empty where no other value would help, as for an unknown name.
    """

    def __init__(self, message: str, *, key: str = "", value: object = None, limit: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.value = value
        self.limit = limit

    @classmethod
    def of(cls, key: str, value: object, limit: str, hint: str = "") -> "ConfigError":
        """Return the error of a setting out of its limit.

        Args:
            key: see above.
            value: likewise.
            limit: likewise.
            hint: what else to say, such as how the value is written.
        """
        more = f": {hint}" if hint else ""
        return cls(f"{key} = {shown(value)}, but it must be {limit}{more}", key=key, value=value, limit=limit)

    def within(self, where: str) -> "ConfigError":
        """Return the same error with the place in front of its message, such as the file that holds the setting."""
        return ConfigError(f"{where}: {self}", key=self.key, value=self.value, limit=self.limit)


class CheckpointError(InputError):
    """A backbone checkpoint is unreadable or does not fit the architecture."""


class CohortError(InputError):
    """A raw or prepared cohort as a whole cannot be used."""


class ScanError(InputError):
    """A scan that a model shall say something of cannot be read or prepared.

    Args:
        message: the whole sentence.
        reason: short stable code, see ``SubjectRefused``.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class UnfitError(InputError):
    """A site cannot run a job as it is set up.

    Args:
        message: every reason and what to do, for the site's own terminal.
        in_log: what a log may say of them: no subject, no count of subjects, no path.
    """

    def __init__(self, message: str, in_log: str) -> None:
        super().__init__(message)
        self.in_log = in_log


class KitError(InputError):
    """A FLARE startup kit is of a kind or version that is not known; nothing was changed."""


class ArtifactError(InputError):
    """An adapter artefact or a run directory is missing, damaged or of another kind."""


class SubjectRefused(MedDualLoRAError):
    """One subject cannot be prepared.

    Args:
        reason: a short stable code such as ``"missing-file"``; reports count by it.
        detail: what was found, what was expected and where, for the person who fixes it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StateError(MedDualLoRAError):
    """A site's local state is missing, damaged or belongs to another experiment."""


class LedgerError(MedDualLoRAError):
    """A ledger is damaged or cannot be written; what it should record does not leave."""


class EgressViolation(MedDualLoRAError):
    """A payload is not exactly what the egress contract allows; names the offence, never a value."""


class AggregationError(MedDualLoRAError):
    """A contribution or a round cannot be aggregated."""


class FederationError(MedDualLoRAError):
    """A process, site or job of a federation did not do what was asked of it; says where its log is."""


class TrainingDiverged(MedDualLoRAError):
    """A loss or gradient is not a finite number; the last saved state is intact."""


class TrainingAborted(MedDualLoRAError):
    """The federation asked to stop; the last saved state is intact."""
