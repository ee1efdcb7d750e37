"""Keeps every task result exactly as it reached the server; travels in the test's job."""

import uuid
from pathlib import Path

from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs


class CaptureFilter(Filter):
    """A server's task result filter that changes nothing."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        site = fl_ctx.get_peer_context().get_identity_name()
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
        Path(self.folder, f"{site}.{task}.{uuid.uuid4().hex}").write_bytes(fobs.dumps(shareable))
        return shareable
