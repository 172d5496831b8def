"""Where we run: the device that was named, or a word on why not."""

import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.world import World, find_device


def test_a_device_is_found_or_named():
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device quux: not here"):
        find_device("quux")


@pytest.mark.parametrize(("name", "expected"), [("cuda", "cuda:3"), ("cuda:1", "cuda:1")])
def test_cuda_is_the_gpu_of_this_process(monkeypatch, name, expected):
    touched, chosen = [], []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch, "empty", lambda _, device: touched.append(device))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert World.join("fp32", name).device == torch.device(expected)
    assert touched == chosen == [torch.device(expected)], "a process leaves the others' GPUs alone"
