"""Writing and answering: for files of any length, alone or in company, the same each time."""

import numpy as np
import pytest
import soundfile
import torch

from otic.audio.frontend import FrontendConfig
from otic.core.errors import AudioError, ConfigError, WeightsError
from otic.core.seeds import generator, rng
from otic.inference.caption import load_writer
from otic.models.captioner import Captioner, CaptionerConfig, to_file
from otic.models.mapper import MapperConfig
from otic.models.text_block import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.vit import ViT, ViTConfig
from otic.weights import store

OPTIONS = ("a dog", "rain", "wind")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("writer") / "model.safetensors"
    encoder = ViT(ViTConfig(width=16, depth=1, heads=2, mels=32), generator("encoder"))
    text = TextConfig(vocab=0, positions=64, width=24, depth=1, heads=2)
    cfg = CaptionerConfig(text=text, mapper=MapperConfig(prefix=2, depth=1, heads=2), pool="series")
    tokenizer = Tokenizer.train(["a dog barks", "rain falls", "a dog in the rain"], 280, length=16)
    captioner = Captioner(encoder, cfg, tokenizer, generator("captioner"))
    with torch.no_grad():
        for name, p in captioner.named_parameters():  # a model that has opinions, and hears
            if p.ndim > 1:
                p.mul_(30 if "decoder.tokens" in name else 4)
    card = {"name": "writer", "labels_used": True, "crop_seconds": 1.0}
    store.save(path, encoder, FrontendConfig(mels=32), card, *to_file(captioner))
    return path


@pytest.fixture(scope="module")
def writer(file):
    return load_writer(file, device="cpu")


def wave(name, seconds=1.0):
    return 0.1 * rng(name).standard_normal(round(16000 * seconds)).astype(np.float32)


def test_windows_are_as_long_as_the_crops(writer):
    said = list(writer.caption(wave("long", 2.5), beams=2, longest=5))
    assert [(s.start, s.end) for s in said] == [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]
    assert all(len(s.texts) == len(s.scores) == 2 and s.scores[0] >= s.scores[1] and s.text == s.texts[0] for s in said)
    whole = list(writer.caption(wave("long", 2.5), beams=2, longest=5, window=3))
    assert [(s.start, s.end) for s in whole] == [(0.0, 2.5)]


def test_the_same_alone_or_in_company(writer):
    waves = [wave(k, seconds) for k, seconds in enumerate((1.0, 0.3, 2.2, 0.3))]
    together = [(s.text, s.scores) for s in writer.caption(waves, "what?", beams=3, longest=6)]
    alone = [(s.text, s.scores) for w in waves for s in writer.caption(w, "what?", beams=3, longest=6)]
    assert [text for text, _ in together] == [text for text, _ in alone]
    np.testing.assert_allclose([w for _, w in together], [w for _, w in alone], atol=1e-4)
    np.testing.assert_allclose(
        writer.answer(waves, "what?", OPTIONS),
        np.concatenate([writer.answer(w, "what?", OPTIONS) for w in waves]),
        atol=1e-5,
    )


def test_answers_are_the_language_models(writer):
    found = writer.answer([wave("x"), wave("y")], "what?", OPTIONS)
    assert found.shape == (2, 3) and np.allclose(found.sum(1), 1)
    spec = writer.model.frontend(torch.from_numpy(wave("x"))[None], None, 112)
    with torch.no_grad():
        logs = writer.captioner.weigh(writer.captioner.prefix(spec), "what?", OPTIONS)
    np.testing.assert_allclose(found[0], logs.softmax(1)[0].numpy(), atol=1e-4)
    log = np.log(found)
    assert not np.allclose(log[0], np.log(writer.answer(wave("x"), "who?", OPTIONS)[0]), atol=1e-3)
    assert not np.allclose(log[0], log[1], atol=1e-3)
    assert writer.answer([], "what?", OPTIONS).shape == (0, 3)


def test_bad_files_are_named_and_the_others_go_on(writer, tmp_path):
    soundfile.write(tmp_path / "good.wav", wave("good"), 16000)
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    said = list(writer.caption([tmp_path / "bad.wav", tmp_path / "good.wav"], beams=1, longest=3))
    assert [s.failed is None for s in said] == [False, True] and "bad.wav" in said[0].source
    with pytest.raises(AudioError):
        writer.answer([tmp_path / "bad.wav"], "what?", OPTIONS)


def test_what_makes_no_sense_is_refused(writer, tmp_path):
    with pytest.raises(ConfigError, match="beams=0"):
        list(writer.caption(wave("x"), beams=0))
    with pytest.raises(ConfigError, match="no options"):
        writer.answer(wave("x"), "what?", [])
    store.save(tmp_path / "deaf.safetensors", writer.model.encoder, FrontendConfig(mels=32), {"name": "mute"})
    with pytest.raises(WeightsError, match="this model cannot write"):
        load_writer(tmp_path / "deaf.safetensors", device="cpu")
