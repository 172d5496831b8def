from dataclasses import replace

import pytest
import torch

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.heads import HeadConfig
from otic.objectives import Supervised, SupervisedConfig
from otic.objectives.supervised import bce, cross_entropy

LOGITS = torch.randn(4, 5, generator=generator("logits"))
MANY = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [1, 1, 1, 1, 1]])
CFG = SupervisedConfig(head=HeadConfig(classes=5))


def test_bce_by_hand():
    p = LOGITS.double().sigmoid()
    total = -(MANY * p.log() + (1 - MANY) * (1 - p).log()).sum()
    for per, count in (("label", 8.0), ("clip", 4), ("cell", 20)):
        assert bce(LOGITS, MANY, per).item() == pytest.approx((total / count).item(), rel=1e-5)
    assert bce(LOGITS, torch.zeros(4, 5)).isfinite()


def test_cross_entropy_by_hand():
    one = torch.eye(5)[:4]
    log = LOGITS.double().log_softmax(1)
    for smoothing in (0.0, 0.1):
        soft = (1 - smoothing) * one + smoothing / 5
        assert cross_entropy(LOGITS, one, smoothing).item() == pytest.approx(
            -(soft * log).sum(1).mean().item(), rel=1e-5
        )


def test_labels_as_indices_or_rows():
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4)), CFG)
    spec = torch.randn(3, 1, 32, 128, generator=generator("spec"))
    batch = Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), spec=spec, labels=torch.tensor([0, 4, 2]))
    rows = replace(batch, labels=torch.eye(5)[[0, 4, 2]])
    assert torch.equal(tuner(batch, generator(0)).total, tuner(rows, generator(0)).total)
    with pytest.raises(ConfigError, match="no labels"):
        tuner(replace(batch, labels=None), generator(0))
    with pytest.raises(ConfigError, match="6 classes, but the head has 5"):
        tuner(replace(batch, labels=torch.zeros(3, 6)), generator(0))
