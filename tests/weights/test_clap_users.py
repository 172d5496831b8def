"""What users of the published CLAP programs were hurt by does not happen to users of their files here.

The cases come from the issue trackers of microsoft/CLAP, LAION-AI/CLAP, transformers and mteb: vectors that change from
call to call, second channels and ends of files that vanish, filterbanks nobody can tell, loaders that download, pins.
"""

import json
import re
import socket
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from clap_files import MELS, gpt2_folder, laion, msclap_2022, msclap_2023

from otic.apps.cli import main
from otic.core.errors import ConfigError, OticWarning
from otic.core.seeds import rng
from otic.inference.load import load

KINDS = {"2023": msclap_2023, "2022": msclap_2022, "laion": laion, "fused": lambda: laion(fused=True)}
SETTINGS = {"gpt2": {"n_head": 2}, "bert": {"num_attention_heads": 2}, "text": {"num_heads": 2}}


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    torch.save(KINDS[request.param]()[1], folder / "file.pt")
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    return folder / "file.pt"


@pytest.fixture(scope="module")
def model(published):
    return load(published, "cpu")


def noise(seconds, rate, channels=1, key=0):
    return 0.1 * rng("clap users", key).standard_normal((round(seconds * rate), channels)).astype(np.float32)


def test_a_file_has_one_vector_alone_in_company_and_again(model, tmp_path):
    rate, files = model.sample_rate, []
    for i, (seconds, channels) in enumerate(((3, 2), (0.4, 1), (11, 1))):
        files.append(tmp_path / f"{i}.wav")
        soundfile.write(files[-1], noise(seconds, rate, channels, i), rate, subtype="FLOAT")
    together = model.audio(files)
    assert np.array_equal(together, model.audio(files)) and np.array_equal(together[::-1], model.audio(files[::-1]))
    assert np.abs(together - np.concatenate([model.audio(file) for file in files])).max() <= 1e-6
    mono = noise(3, rate, 2).mean(1)
    assert np.abs(together[0] - model.audio(mono)[0]).max() <= 1e-5  # both channels, none of them twice


def test_nothing_of_a_long_file_is_cut(model):
    rate = model.sample_rate
    wave = noise(2.4 * model.native, rate)[:, 0]
    whole = model.audio(wave)
    for at in (0.0, 0.5, 0.97):
        changed, start = wave.copy(), round(at * len(wave))
        changed[start : start + rate // 2] = 0
        assert np.abs(model.audio(changed) - whole).max() > 1e-6, at


def test_loading_asks_nobody(published, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert load(published, "cpu").audio(noise(1, 16000)[:, 0]).shape[0] == 1


def test_the_card_says_which_filterbank_it_was(published, capsys):
    assert main(["info", str(published), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert re.match(r"16 \w+ bands (of|built for) \d+ Hz.* [\d.]+-[\d.]+ Hz", card["hears"]), card["hears"]


def test_two_sounds_are_compared_without_a_vocabulary(published, tmp_path, capsys):
    for name, key in (("a", 0), ("b", 1)):
        soundfile.write(tmp_path / f"{name}.wav", noise(1, 16000, key=key), 16000)
    assert main(["similarity", str(published), str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), "--json"]) == 0
    (other,) = json.loads(capsys.readouterr().out)["others"]
    assert other["kind"] == "audio" and -1 <= other["cosine"] <= 1


def test_long_texts_are_cut_with_a_word_and_different_ones_differ(tmp_path):
    torch.save(msclap_2023()[1], tmp_path / "file.pth")
    model = load(tmp_path / "file.pth", "cpu", tokenizer=gpt2_folder(tmp_path / "words"))
    with pytest.warns(OticWarning, match="more than 77 tokens"):
        said = model.text(["rain " * 200, "rain", "a dog"])
    assert np.isfinite(said).all() and len(np.unique(said.round(4), axis=0)) == 3


def test_a_fusing_model_is_told_which_clips_are_longer():
    towers = laion(fused=True)[0]
    spec = torch.randn(2, 4, 250, MELS, generator=torch.Generator().manual_seed(0)) * 20 - 40
    with torch.no_grad():
        both, one = (towers.audio(spec, longer=torch.tensor(longer)) for longer in ([True, True], [True, False]))
    assert torch.allclose(both[0], one[0], atol=1e-6) and not torch.allclose(both[1], one[1], atol=1e-4)


def test_a_vocabulary_that_cannot_be_the_models_is_refused(tmp_path):
    torch.save(msclap_2023()[1], tmp_path / "file.pth")
    own, other = gpt2_folder(tmp_path / "own"), gpt2_folder(tmp_path / "other")
    vocab = json.loads((other / "vocab.json").read_text())
    (other / "vocab.json").write_text(json.dumps(vocab | {"rain": len(vocab)}))
    with pytest.raises(ConfigError, match=r"other: it has 258 tokens, the text tower knows 257"):
        load(tmp_path / "file.pth", "cpu", tokenizer=other)
    assert main(["convert", str(tmp_path / "file.pth"), "--out", str(tmp_path / "o"), "--tokenizer", str(own)]) == 0
    with pytest.raises(ConfigError, match=r"other: the model brought its own, of 257 tokens, not 258"):
        load(tmp_path / "o", "cpu", tokenizer=other)
    assert load(tmp_path / "o", "cpu", tokenizer=own).text("rain").shape[0] == 1


def test_nothing_heavy_is_asked_for_and_nothing_pinned_from_above():
    said = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = said["project"]["dependencies"]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", one) for one in wanted), wanted
    names = {re.split(r"\W", one)[0].lower() for one in wanted}
    assert not names & {"transformers", "torchaudio", "torchvision", "wandb", "h5py", "webdataset", "librosa", "wget"}
