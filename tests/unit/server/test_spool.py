import numpy as np

from med_duallora.boundary.contract import EgressContract
from med_duallora.server.spool import Spool
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import random_payload, same


def test_what_was_kept_comes_back_bit_by_bit_from_any_place() -> None:
    contract = EgressContract.for_job(JobConfig(backbone="cinema-tiny"))
    spool, payloads = Spool(contract.tensors), [random_payload(contract, seed) for seed in range(4)]
    for place, payload in enumerate(payloads):
        spool.write(place, payload)
    for place in (2, 0, 3, 1, 2):
        assert same(spool.read(place), payloads[place])
    spool.write(1, payloads[0])
    assert same(spool.read(1), payloads[0]) and same(spool.read(2), payloads[2])
    assert all(np.isfinite(value).all() for value in spool.read(3).values())
