"""How many bytes a site sends in a round: the train reply of a job as FLARE serialises it."""

from functools import lru_cache

import numpy as np
from nvflare.app_common.decomposers import numpy_decomposers
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.measures import Place
from med_duallora.settings.config import JobConfig


@lru_cache(maxsize=128)
def payload_bytes(job: JobConfig) -> int:
    """Return the size of a reply that holds every tensor and every metric of the job's contract."""
    contract = EgressContract.for_job(job)
    tensors = {name: np.zeros(spec.shape, spec.dtype) for name, spec in contract.tensors.items()}
    numpy_decomposers.register()  # FLARE's processes have done so when they begin
    metrics = dict.fromkeys(contract.metric_names(Place.TRAIN_REPLY), 1.0)
    return len(fobs.dumps(TrainReply(tensors, 1.0, 0, metrics).to_shareable(pack=True)))
