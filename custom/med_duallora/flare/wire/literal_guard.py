"""Lets FLARE build a job from literal JSON only, in the parent and in the job process, at a site and at the server.

FLARE has no hook between the reading of a job's configuration and the building of its components, so this is the one
place where private functions of FLARE 2.9 are replaced. FLARE loads this component from local/resources.json before it
looks at any job: in the parent process at its start, in a job process before the job's own configuration.
"""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.utils.config import ConfigFormat
from nvflare.fuel.utils.config_factory import ConfigFactory
from nvflare.private.fed.app.fl_app_validator import FLAppValidator
from nvflare.private.fed_json_config import FedJsonConfigurator

from med_duallora.boundary.literal import CONFIG_FOLDER, check_app, check_same, read_literal
from med_duallora.errors import ConfigError

KNOWN_FLARE = "2.9."
MARK = "_med_duallora_literal"
"""On what replaces a function of FLARE; and the name under which a reader of a job keeps what was signed."""

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


class LiteralGuard(FLComponent):
    """Refuses jobs whose configuration is anything but literal JSON, and jobs that are built as something else.

    Raises:
        UnsafeComponentError: this is a version of FLARE whose reading of jobs is not known; FLARE then does not start.
    """

    def __init__(self) -> None:
        super().__init__()
        close_configurations()


def close_configurations() -> None:
    """Close FLARE's ways of reading a job, once per process; a second call changes nothing.

    Raises:
        UnsafeComponentError: they cannot be closed.
    """
    version = importlib.metadata.version("nvflare")
    if not version.startswith(KNOWN_FLARE):
        raise UnsafeComponentError(f"how nvflare {version} reads a job is not known; use nvflare {KNOWN_FLARE}x")
    loaders = ConfigFactory._fmt2Loader
    for other in set(loaders) - {ConfigFormat.JSON}:
        del loaders[other]
    for owner, name, wrapper in REPLACED:
        inner = getattr(owner, name, None)
        if not callable(inner):
            raise UnsafeComponentError(f"nvflare {version} has no {owner.__name__}.{name}, where jobs are checked")
        if not hasattr(inner, MARK):
            replacement = wrapper(inner)
            setattr(replacement, MARK, True)
            setattr(owner, name, replacement)


def is_closed() -> bool:
    """Return whether this process builds jobs from literal JSON only."""
    replaced = all(hasattr(getattr(owner, name), MARK) for owner, name, _ in REPLACED)
    return replaced and set(ConfigFactory._fmt2Loader) == {ConfigFormat.JSON}


def _validated(inner: Callable[..., Any]) -> Callable[..., Any]:
    """In the parent process, at deployment: before FLARE opens any file of the job."""

    def validate(self: FLAppValidator, app_folder: str) -> tuple[str, dict[str, Any]]:
        try:
            check_app(Path(app_folder))
        except (ConfigError, OSError) as error:
            return f"refused: {error if isinstance(error, ConfigError) else error.strerror}", {}
        return inner(self, app_folder)  # type: ignore[no-any-return]

    return validate


def _read(inner: Callable[..., Any]) -> Callable[..., Any]:
    """In the job process: before the configuration is loaded."""

    def __init__(self: FedJsonConfigurator, config_file_name: str, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        path = Path(config_file_name)
        # a kit of "nvflare package" names no folder: FLARE then looks for the file everywhere below the app
        app = path.parent.parent if path.parent.name == CONFIG_FOLDER else path.parent
        check_app(app)
        setattr(self, MARK, read_literal(app / CONFIG_FOLDER / path.name))
        inner(self, config_file_name, *args, **kwargs)

    return __init__


def _resolved(inner: Callable[..., Any]) -> Callable[..., Any]:
    """In the job process: after FLARE resolved references and before it builds the first component."""

    def start_config(self: FedJsonConfigurator, config_ctx: Any) -> None:
        check_same(getattr(self, MARK), self.config_data, "what FLARE would build")
        inner(self, config_ctx)

    return start_config


def _built(inner: Callable[..., Any]) -> Callable[..., Any]:
    """In the job process: once all components are built, and before any of them acts."""

    def finalize_config(self: FedJsonConfigurator, config_ctx: Any) -> None:
        # only here: the parent process, which waits for jobs and builds none, does without torch
        from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob

        inner(self, config_ctx)
        signed = {item.get("id"): item for item in getattr(self, MARK).get("components", [])}
        job = self.components.get(JOB_COMPONENT)
        if isinstance(job, FederatedJob):
            check_same(signed[JOB_COMPONENT]["args"]["config"], job.config, "the job's settings")

    return finalize_config


REPLACED: tuple[tuple[type, str, Wrapper], ...] = (
    (FLAppValidator, "validate", _validated),
    (FedJsonConfigurator, "__init__", _read),
    (FedJsonConfigurator, "start_config", _resolved),
    (FedJsonConfigurator, "finalize_config", _built),
)
