"""The choice of a device."""

import pytest
import torch

from msdyn.devices import choose_device
from msdyn.errors import InputError


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match="expected a CUDA device .* use --device cpu"):
            choose_device(name)


def test_with_gpus_any_of_them_can_be_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="expected cuda:0 to cuda:1, got cuda:2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "mps"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="device: expected auto, cpu, cuda or cuda:N"):
        choose_device(name)
