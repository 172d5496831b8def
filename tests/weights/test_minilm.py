"""all-MiniLM-L6-v2, the sentence encoder that people use, as it was published: where its folder is named."""

import os
from pathlib import Path

import numpy as np
import pytest

from otic.core.files import sha256
from otic.weights.sentences import SentenceEncoder

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
# The first numbers of each vector, and a cosine, by transformers 5.23 (AutoModel, masked mean, length one).
PUBLISHED = {
    "a dog barks": [0.043433, -0.037521, 0.050417, 0.09343, 0.023584, -0.008432],
    "heavy rain falls on a roof, then a rooster crows": [0.0001, -0.009351, 0.089444, 0.033883, 0.038009, -0.01855],
    "": [-0.118838, 0.048299, -0.002548, -0.011011, 0.051951, 0.010292],
    "Café über 北京 " + "long " * 300: [-0.002931, -0.017971, 0.035238, 0.029103, -0.083798, 0.048573],  # cut at 256
}


@pytest.fixture
def folder():
    if "OTIC_MINILM" not in os.environ:
        pytest.skip("OTIC_MINILM does not name the folder of all-MiniLM-L6-v2")
    return Path(os.environ["OTIC_MINILM"])


def test_published_weights_give_the_published_vectors(folder):
    assert sha256(folder / "model.safetensors") == SHA256
    vectors = SentenceEncoder.load(folder)(list(PUBLISHED)).numpy()
    np.testing.assert_allclose(vectors[:, :6], list(PUBLISHED.values()), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] == pytest.approx(0.2475, abs=1e-4)
