import numpy as np
import pytest
import torch

from med_duallora.support.usage import peak_memory_mb


def test_the_peak_of_a_process_grows_with_what_it_holds_and_stays() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    held = np.ones(int((before + 64) * 2**20), dtype=np.uint8)  # more than the process ever had
    peak = peak_memory_mb(torch.device("cpu"))
    assert peak > held.nbytes / 2**20
    del held
    assert peak_memory_mb(torch.device("cpu")) >= peak


def test_on_a_cuda_device_it_is_what_torch_took_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20 if device.index == 1 else 0)
    assert peak_memory_mb(torch.device("cuda:1")) == 3.0
