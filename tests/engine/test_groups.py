import pytest

from otic.core.ramps import Cosine
from otic.engine.groups import layer_decay_groups, scaled
from otic.models import ViT, ViTConfig
from otic.models.heads import HeadConfig
from otic.objectives import Supervised, SupervisedConfig


def build():
    encoder = ViT(ViTConfig(width=16, depth=3, heads=2))
    return Supervised(encoder, SupervisedConfig(head=HeadConfig(classes=3)))


def test_each_tensor_is_in_one_group_and_learns_by_its_depth():
    module = build()
    groups = layer_decay_groups(module, lr=1.0, decay=0.5)
    seen = [name for group in groups for name in group["names"]]
    assert sorted(seen) == sorted(name for name, p in module.named_parameters() if p.requires_grad)
    named = dict(module.named_parameters())
    for group in groups:
        assert all(named[name] is p for name, p in zip(group["names"], group["params"]))
        for name in group["names"]:
            want = 0.5 ** (3 - int(name.split("blocks.")[1][0])) if "blocks." in name else 1.0
            assert group["lr"] == group["lr_scale"] == want, name
            assert group["weight_decay"] == 0.05


def test_intended_decay_spares_vectors():
    for group in layer_decay_groups(build(), lr=1.0, exact=False):
        for name in group["names"]:
            matrix = name.endswith("weight") and "norm" not in name
            assert group["weight_decay"] == (0.05 if matrix else 0.0), name


def test_a_peak_below_the_floor_is_constant():
    schedule = Cosine(peak=5e-5, steps=100, warmup=10, floor=1e-6, first=1e-6)
    assert [scaled(schedule, 0.01)(step) for step in range(101)] == pytest.approx([5e-7] * 101)
    assert scaled(schedule, 0.5)(10) == pytest.approx(2.5e-5)
    assert scaled(schedule, 0.5)(100) == pytest.approx(1e-6)
