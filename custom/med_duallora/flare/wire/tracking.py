"""The agreed metrics as TensorBoard scalars and as console statistics."""

from collections.abc import Mapping

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.widgets.convert_to_fed_event import FED_EVENT_PREFIX
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.boundary.contract import EgressContract
from med_duallora.measures import MEASURES

FEDERATION_EVENT = FED_EVENT_PREFIX + ANALYTIC_EVENT_TYPE
"""Event under which a site's scalars reach the server."""
LOCAL_EVENT = ANALYTIC_EVENT_TYPE
"""Event under which the server's own scalars reach its TensorBoard writer."""


def stream_from_site(
    sender: FLComponent, contract: EgressContract, metrics: Mapping[str, float], step: int, fl_ctx: FLContext
) -> None:
    """Send a site's metrics to the server's TensorBoard, those that it draws; they leave, so the contract decides.

    Args:
        sender: component that sends.
        contract: what may leave.
        metrics: name -> value.
        step: position on the horizontal axis: the round, from 0.
        fl_ctx: of the running task.

    Raises:
        EgressViolation: a metric that the contract does not name; nothing was sent.
    """
    checked = contract.check_metrics(dict(metrics))
    drawn = {name: value for name, value in checked.items() if MEASURES[name].tag}
    _send(sender, drawn, step, fl_ctx, FEDERATION_EVENT)


def write_at_server(sender: FLComponent, scalars: Mapping[str, float], step: int, fl_ctx: FLContext) -> None:
    """Write the server's own scalars to its TensorBoard run; nothing is sent."""
    _send(sender, scalars, step, fl_ctx, LOCAL_EVENT)


def _send(sender: FLComponent, scalars: Mapping[str, float], step: int, fl_ctx: FLContext, event: str) -> None:
    for name, value in scalars.items():
        record = create_analytic_dxo(name, value, AnalyticsDataType.SCALAR, global_step=step)
        send_analytic_dxo(sender, record, fl_ctx, event, fire_fed_event=event == FEDERATION_EVENT)


def publish_statistics(group: str, values: Mapping[str, float | str], fl_ctx: FLContext) -> None:
    """Answer the console's show_stats; called on the event ``InfoCollector.EVENT_TYPE_GET_STATS``."""
    collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
    if isinstance(collector, GroupInfoCollector):
        collector.add_info(group, dict(values))
