"""At the start of a site's FLARE process: what in its configuration would stop every job, said in the site's log."""

from pathlib import Path

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from med_duallora.boundary.ledger import site_ledger
from med_duallora.errors import MedDualLoRAError, UnfitError
from med_duallora.settings.config import SiteConfig
from med_duallora.site.fitness import check
from med_duallora.site.places import without_paths
from med_duallora.site_kit.kit import read_kit
from med_duallora.site_kit.layout import check_site_layout
from med_duallora.site_kit.policy_channels import site_config_file


def say_whether_usable(component: FLComponent, fl_ctx: FLContext) -> None:
    """Check the site configuration that the startup kit names, and log the result; the site starts in any case.

    Its administrator learns of a mistake here, and not from a job that fails for everybody. The configuration is read
    again by every job, so that it can be corrected without a restart.
    """
    workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
    if workspace is None:
        return
    try:
        kit = Path(workspace.get_root_dir())
        check_site_layout(read_kit(kit.absolute()))
        place = site_config_file(kit)
        if place is None:
            component.log_error(
                fl_ctx, "local/privacy.json names no site configuration: run site-kit", fire_event=False
            )
            return
        config = SiteConfig.from_file(place)
        check(config, source=place)
        site_ledger(config).check()
    except MedDualLoRAError as error:
        reason = error.in_log if isinstance(error, UnfitError) else without_paths(str(error))
        text = f"every job will fail at this site: {reason}"
        component.log_error(fl_ctx, text, fire_event=False)
        return
    component.log_info(fl_ctx, f"site configuration {place.name} is usable", fire_event=False)
