"""A small untrained model: everything about inference can be told from it."""

import pytest
import torch

from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.seeds import generator
from otic.inference.model import Model
from otic.models.vit import ViT, ViTConfig


def build(card=None, **cfg) -> Model:
    gen = generator("inference tests")
    encoder = ViT(ViTConfig(**{"width": 32, "depth": 3, "heads": 2, "mels": 64, **cfg}), gen)
    with torch.no_grad():
        for p in encoder.parameters():  # larger than at the start of training, or every clip looks alike
            p.add_(0.2 * torch.randn(p.shape, generator=gen))
    return Model(encoder, Frontend(FrontendConfig(mels=64)), card, device="cpu")


@pytest.fixture(scope="session")
def make_model():
    """`make_model(card, depth=2, ...)`: a model of any shape."""
    return build


@pytest.fixture(scope="session")
def model():
    return build({"name": "tiny"})
