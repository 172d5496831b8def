"""Words around an encoder that wants one length: what it hears in training is what it hears later."""

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.config import to_dict
from otic.core.seeds import rng
from otic.data.crops import Crops, batches
from otic.data.source import open_source
from otic.inference.load import read_model
from otic.inference.model import Model
from otic.inference.options import Options
from otic.models.htsat import HTSAT, HTSATConfig
from otic.recipes import RECIPES
from otic.recipes.base import adopted
from otic.weights import store

FRONT = FrontendConfig(
    kind="htsat", sample_rate=8000, mel="slaney", mels=16, low=50.0, high=4000.0, window=256, fft=256, hop=80,
    mean=0.0, std=0.5, subtract_mean=False, pad="floor",
)  # fmt: skip


@pytest.mark.parametrize("short", ["repeat", "repeatpad", "pad"])
@pytest.mark.parametrize("window", [2.0, 7.0])  # its picture holds 2.55 s
@pytest.mark.parametrize("name", ["clap_tiny", "caption_tiny"])
def test_a_clip_is_heard_alike_in_training_and_later(tmp_path, name, window, short):
    encoder = HTSAT(HTSATConfig(width=8, depths=(1, 1), heads=(2, 2), window=4, image=64, mels=16, classes=0)).eval()
    encoder.input_norm.running_mean.fill_(-50.0)
    encoder.input_norm.running_var.fill_(400.0)
    card = {"name": "tower", "inference": to_dict(Options(window=window, short=short))}
    store.save(tmp_path / "tower.safetensors", encoder, FRONT, card)
    recipe = adopted(RECIPES[name](), read_model(tmp_path / "tower.safetensors"))

    wave = rng("adopted").standard_normal(9000).astype(np.float32) * 0.1
    wave[4000:] *= 0.01
    soundfile.write(tmp_path / "sound.wav", wave, 8000, subtype="FLOAT")
    crops = Crops(open_source(tmp_path / "sound.wav"), 8000, recipe.crop_seconds, 0, short=recipe.short)
    stream = batches(crops, 1)
    heard = Frontend(FRONT).fill(next(stream), recipe.frames or None)
    stream.close()
    frames = int(heard.frames[0])  # what lies past them is cut off
    with torch.inference_mode():
        trained = encoder(heard.spec[:, :, :frames]).patches.mean(1)
    model = Model(encoder, Frontend(FRONT), {"inference": to_dict(recipe.inference)}, device="cpu")
    later = model.embed(wave, sample_rate=8000, window=recipe.inference.window, layer=None, pool="mean").vectors
    assert F.cosine_similarity(trained, torch.from_numpy(later)).item() > 0.9999
