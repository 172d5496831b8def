"""Files of the MS-CLAP and LAION-CLAP layouts: nothing guessed, nothing lost, nothing executed."""

import json
import os
import pickle

import pytest
import torch
from clap_files import BERT, FFT, GPT2, MELS, bank, clapcap, gpt2_folder, laion, msclap_2022, msclap_2023

from otic.audio.frontend import Frontend
from otic.audio.melbank import mel_bank
from otic.core.errors import ConfigError, WeightsError
from otic.models.tokenizer import Tokens
from otic.weights import anyfile, store
from otic.weights.anyfile import LAYOUTS, read
from otic.weights.upstream import hf_clap
from otic.weights.upstream import laion as laion_layout
from otic.weights.upstream import msclap as msclap_layout
from otic.weights.upstream.filterbank import recognise

SETTINGS = {"gpt2": {"n_head": GPT2.heads}, "bert": {"num_attention_heads": 2}, "text": {"num_heads": 2}}
FILES = {
    "2023": (msclap_2023, msclap_layout),
    "2022": (msclap_2022, msclap_layout),
    "laion": (laion, laion_layout),
    "laion fused": (lambda: laion(fused=True), laion_layout),
}
IDS = torch.tensor([[3, 7, 9, -1], [5, -1, 1, 1]])  # -1: the end token, 1: padding


def same_vectors(ours, theirs, fused=False):
    gen = torch.Generator().manual_seed(0)
    spec = torch.randn(2, 4 if fused else 1, 250, MELS, generator=gen) * 20 - 40
    longer = torch.tensor([True, False]) if fused else None
    pad = ours.cfg.text.pad
    ids = torch.where(IDS == 1, pad, torch.where(IDS < 0, ours.cfg.text.vocab - 1, IDS))
    tokens = Tokens(ids, ids != pad)
    with torch.no_grad():
        assert torch.equal(ours.audio(spec, longer=longer), theirs.audio(spec, longer=longer))
        assert torch.equal(ours.words(tokens), theirs.words(tokens))
        assert torch.equal(ours.log_scale, theirs.log_scale)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_gives_the_model_that_was_written(kind, tmp_path):
    make, layout = FILES[kind]
    theirs, content = make()
    torch.save(content, tmp_path / "file.pt")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    loaded = read(tmp_path / "file.pt")
    assert layout.matches(content) and not loaded.towers.training and loaded.towers.encoder is loaded.encoder
    same_vectors(loaded.towers, theirs, fused="fused" in kind)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(loaded.towers.state_dict()[name], tensor), name
    assert loaded.towers.tokenizer is None and "tokenizer=FOLDER" in loaded.card["tokenizer"]["get"]


@pytest.mark.parametrize("kind", FILES)
def test_no_other_layout_takes_it(kind):
    content = FILES[kind][0]()[1]
    assert [name for name, layout in LAYOUTS.items() if layout.matches(content)] == [
        "msclap" if kind.startswith("2") else "laion-clap"
    ]


@pytest.mark.parametrize("wrap", [lambda c: c["state_dict"], lambda c: {"state_dict": c["state_dict"], "epoch": 3}])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_laion_files_bare_or_wrapped(wrap, prefix):
    theirs, content = laion()
    content["state_dict"] = {prefix + n.removeprefix("module."): t for n, t in content["state_dict"].items()}
    found = laion_layout.convert(wrap(content), SETTINGS)
    assert torch.equal(found.towers_state["log_scale"], theirs.log_scale)


def test_the_captioners_audio_encoder_is_read_and_the_rest_named(tmp_path):
    theirs, content = clapcap()
    torch.save(content, tmp_path / "file.pth")
    loaded = read(tmp_path / "file.pth")
    for name, tensor in theirs.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor), name
    assert loaded.towers is None and "audio_head.linear1.weight" in loaded.extra
    assert "gpt.wte.weight (1)" in loaded.card["dropped"]


def test_what_a_file_repeats_is_dropped_by_name_only():
    _, content = msclap_2023()
    found = msclap_layout.convert(content, SETTINGS)
    assert "caption_encoder.base.h.N.attn.masked_bias (2)" in found.dropped
    assert not any("melW" in name for name in found.dropped)
    content["model"]["caption_encoder.base.h.0.attn.another"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors did not map.*h\.0\.attn\.another"):
        msclap_layout.convert(content, SETTINGS)


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_tensor_is_named(kind):
    make, layout = FILES[kind]
    content = make()[1]
    (state,) = [v for v in content.values() if isinstance(v, dict)]
    marks = ("position_ids", "melW", "attn_mask", "_index", "masked_bias", "attn.bias", "stft", ".head.", "pooler")
    shed = (
        "transform.sequential",
        "audio_branch.head",
        "htsat.head",
        "num_batches_tracked",
        "tscam_conv",
        "fc_audioset",
    )
    needed = [n for n in state if not any(m in n for m in (*marks, *shed)) and n not in layout.MARKS]
    for name in needed[:: max(1, len(needed) // 6)]:
        fewer = {k: {n: t for n, t in v.items() if n != name} if v is state else v for k, v in content.items()}
        with pytest.raises(WeightsError, match=r"missing|unexpected|shape|no block"):
            layout.convert(fewer, SETTINGS, "file.pt")


def test_a_tensor_of_another_shape_is_named():
    _, content = msclap_2023()
    content["model"]["audio_encoder.base.htsat.layers.1.blocks.1.mlp.fc1.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"stages\.1\.blocks\.1\.mlp\.fc1\.bias.*\(3,\)"):
        msclap_layout.convert(content, SETTINGS)


def test_heads_that_do_not_fit_are_an_error_of_the_settings():
    _, content = msclap_2023()
    with pytest.raises(WeightsError, match=r"text tower.*heads=3"):
        msclap_layout.convert(content, {"gpt2": {"n_head": 3}})


def test_relative_positions_counted_otherwise_are_refused():
    _, content = msclap_2023()
    name = "audio_encoder.base.htsat.layers.0.blocks.0.attn.relative_position_index"
    content["model"][name] = content["model"][name].mT.contiguous()
    with pytest.raises(WeightsError, match=r"relative positions of block 0\.0"):
        msclap_layout.convert(content, SETTINGS)


def test_another_window_of_the_transform_is_refused():
    _, content = msclap_2023()
    content["model"]["audio_encoder.base.htsat.spectrogram_extractor.stft.conv_real.weight"] *= 0.5
    with pytest.raises(WeightsError, match="Hann"):
        msclap_layout.convert(content, SETTINGS)


@pytest.mark.parametrize(("rate", "high", "top"), [(32000, 14000.0, 447), (44100, 14000.0, 325), (44100, 8000.0, 185)])
def test_the_filterbank_is_recognised_by_its_numbers(rate, high, top):
    """The fingerprints of the specification, at the published size."""
    found = recognise(mel_bank("slaney", rate=rate, fft=1024, mels=64, low=50.0, high=high), 44100)
    assert (found.highest_bin, found.rate, found.high) == (top, rate, high)
    assert found.mended["mel_rate"] == (None if rate == 44100 else rate)
    if top == 447:
        assert found.band == pytest.approx((68.90625, 19293.75)) and "hears 68.9-19293.8 Hz" in str(found)


def test_an_unknown_filterbank_is_taken_as_it_is_and_said_to_be_so():
    odd = bank() * torch.linspace(1, 1.3, MELS)
    theirs, content = msclap_2023(odd)
    found = msclap_layout.convert(content, SETTINGS)
    assert torch.equal(found.bank, odd) and theirs.encoder.cfg.mels == found.frontend.mels
    assert recognise(odd, 44100).shape is None and "no published shape" in str(recognise(odd, 44100))


@pytest.mark.parametrize("kind", FILES)
def test_mel_bands_fit_the_rate(kind):
    """The published edges are for rates above 28 kHz."""
    make, layout = FILES[kind]
    for said, high in ({"sample_rate": 16000}, 8000.0), ({"sample_rate": 16000, "fmin": 0, "fmax": 7000}, 7000.0):
        content = make()[1]
        state = content.get("model", content.get("state_dict"))
        name = next(n for n in state if n.endswith("melW"))
        state[name] = bank() * torch.linspace(1, 1.3, MELS)  # of no published kind
        found = layout.convert(content, {**SETTINGS, "frontend": said})
        assert (found.frontend.low, found.frontend.high) == (float(said.get("fmin", 50)), high)
        Frontend(found.frontend, bank=found.bank)


def test_the_end_token_may_be_said_beside_the_tower():
    found = msclap_layout.convert(msclap_2023()[1], {**SETTINGS, "eos_id": 33})
    assert found.towers.text.end == 33


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_filterbank_in_half_precision_is_recognised(kind):
    assert recognise(bank(48000).to(kind).float(), 48000) == recognise(bank(48000), 48000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", FILES)
def test_a_copy_in_half_precision_is_read_with_its_own_filterbank(kind, dtype, tmp_path):
    make, layout = FILES[kind]
    theirs, content = make()
    key = "model" if "model" in content else "state_dict"
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in content[key].items()}
    torch.save({**content, key: state}, tmp_path / "file.pt")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    loaded = read(tmp_path / "file.pt")
    assert loaded.frontend == layout.convert(content, SETTINGS).frontend
    for name, tensor in theirs.state_dict().items():
        ours = loaded.towers.state_dict()[name]
        assert torch.equal(ours, tensor.to(dtype).float() if tensor.is_floating_point() else tensor), name
    if loaded.bank is not None:
        assert torch.equal(loaded.bank, next(t for n, t in state.items() if n.endswith("melW")).float())


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1.1e-3), (torch.float16, 2e-3), (torch.bfloat16, 8e-3)])
def test_frames_weighted_by_another_window_are_refused(dtype, off):
    _, content = msclap_2023()
    name = "audio_encoder.base.htsat.spectrogram_extractor.stft.conv_real.weight"
    content["model"][name] = (content["model"][name] + off).to(dtype)
    with pytest.raises(WeightsError, match="periodic Hann window"):
        msclap_layout.convert(content, SETTINGS)


def test_front_ends_as_published():
    mel = {"2023": (44100, 32000, 320, "slaney"), "2022": (44100, None, 320, "slaney"),
           "laion": (48000, None, 480, "slaney"), "laion fused": (48000, None, 480, "htk")}  # fmt: skip
    for kind, (make, layout) in FILES.items():
        found = layout.convert(make()[1], SETTINGS)
        f = found.frontend
        assert (f.sample_rate, f.mel_rate, f.hop, f.mel) == mel[kind] and (f.low, f.high) == (50.0, 14000.0)
        assert f.fft == f.window == FFT and (found.bank is None) == (kind == "laion fused")
        assert f.quantise == kind.startswith("laion")


@pytest.mark.parametrize("fusion", [False, True])
def test_the_preprocessors_settings_are_obeyed(fusion):
    said = {"frequency_min": 0, "frequency_max": 12000, "hop_length": 441, "fft_window_size": 512,
            "sampling_rate": 44100, "truncation": "fusion" if fusion else "rand_trunc"}  # fmt: skip
    f = hf_clap.frontend(said, mels=32, fusion=fusion)
    assert (f.low, f.high, f.hop, f.fft, f.sample_rate, f.mels) == (0.0, 12000.0, 441, 512, 44100, 32)
    assert f.mel == ("htk" if fusion else "slaney")
    bare = hf_clap.frontend({}, mels=64, fusion=fusion)
    assert (bare.low, bare.high, bare.hop, bare.sample_rate, bare.mel) == (50.0, 14000.0, 480, 48000, f.mel)


@pytest.mark.parametrize("part", ["audio_config", "text_config"])
@pytest.mark.parametrize("name", ["hidden_act", "projection_hidden_act"])
def test_another_activation_is_refused(part, name):
    with pytest.raises(WeightsError, match=f"{part} says {name}='silu'"):
        hf_clap.convert({}, {part: {name: "silu"}})


def test_unequal_strides_are_refused():
    with pytest.raises(WeightsError, match="patch_stride"):
        msclap_layout.convert(msclap_2023()[1], {**SETTINGS, "encoder": {"patch_stride": [4, 8]}})


def test_files_of_one_kind_may_share_a_config(tmp_path):
    (tmp_path / "clap_tiny_config.json").write_text('{"a": 1}')
    for name in ("clap.pt", "clap_large.pt", "clap_tiny.pt"):
        assert anyfile._settings(tmp_path / name) == {"a": 1}
    assert not anyfile._settings(tmp_path / "claps_large.pt")
    (tmp_path / "clap_large_config.json").write_text('{"a": 2}')
    assert anyfile._settings(tmp_path / "clap_large.pt") == {"a": 2}
    assert not anyfile._settings(tmp_path / "clap.pt")  # which of the two?


def test_the_preprocessors_file_is_read_beside_the_weights(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"frequency_min": 7}')
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert anyfile._settings(tmp_path / "model.safetensors") == {"a": 1, "preprocessor": {"frequency_min": 7}}
    (tmp_path / "preprocessor_config.json").write_text("[")
    with pytest.raises(WeightsError, match="preprocessor_config"):
        anyfile._settings(tmp_path / "model.safetensors")


def test_bert_pools_its_first_token_and_never_calls_its_pooler():
    found = msclap_layout.convert(msclap_2022()[1], SETTINGS)
    assert found.towers.text == BERT and not any("pooler" in n for n in found.towers_state)


class Runs:
    """Pickles as a command."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


def test_a_hostile_file_is_refused_unexecuted(tmp_path):
    flag = tmp_path / "was_run"
    for where in ("model", "extra"):
        content = msclap_2023()[1]
        (content["model"] if where == "model" else content)["audio_encoder.base.htsat.x"] = Runs(flag)
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(WeightsError, match="system"):
            read(tmp_path / "file.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Runs(flag)))
    with pytest.raises(WeightsError):
        read(tmp_path / "raw.pth")
    assert not flag.exists()


def test_a_cut_file_says_so(tmp_path):
    torch.save(laion()[1], tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(WeightsError, match="complete"):
            read(tmp_path / "cut.pt")


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"state_dict": {"module.x": torch.zeros(1)}}, {"model": 3}])
def test_a_forced_layout_that_does_not_fit_says_what_is_wrong(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    for layout in ("msclap", "laion-clap", "transformers-clap"):
        with pytest.raises(WeightsError, match=r"file\.pt"):
            read(tmp_path / "file.pt", layout=layout)
    with pytest.raises(ConfigError, match="Did you mean 'msclap'"):
        read(tmp_path / "file.pt", layout="mclap")


@pytest.mark.parametrize("kind", FILES)
def test_converted_files_read_back_and_need_nothing_else(kind, tmp_path):
    from otic.apps.convert import convert

    theirs, content = FILES[kind][0]()
    torch.save(content, tmp_path / "file.pt")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    done = convert(tmp_path / "file.pt", tmp_path / "out")
    loaded = store.load(done.file)
    same_vectors(loaded.towers, theirs, fused="fused" in kind)
    assert (loaded.bank is None) == ("fused" in kind) and done.left_out and "tokenizer=FOLDER" in done.tokenizer
    with pytest.raises(WeightsError, match="already"):
        convert(done.file, tmp_path / "again")
    with pytest.raises(ConfigError, match="a file; the weights go into a folder"):
        convert(tmp_path / "file.pt", tmp_path / "config.json")


def test_a_converted_file_carries_its_tokenizer_and_says_what_it_left_out(tmp_path, capsys):
    from otic.apps.cli import main
    from otic.inference.load import load

    torch.save(msclap_2023()[1], tmp_path / "file.pth")
    folder = gpt2_folder(tmp_path / "words")
    said = [str(tmp_path / "file.pth"), "--out", str(tmp_path / "out"), "--tokenizer", str(folder)]
    assert main(["convert", *said, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tokenizer"] == "here" and any("masked_bias (2)" in name for name in document["unmapped"])
    assert "built for 32000 Hz" in document["filterbank"] and document["layout"] == "MS-CLAP"
    direct = load(tmp_path / "file.pth", "cpu", tokenizer=folder)
    texts = ["a dog!! barks", "", "rain"]
    assert (load(tmp_path / "out", "cpu").text(texts) == direct.text(texts)).all()
    assert main(["convert", *said[:2], str(tmp_path / "out"), "--layout", "laion-clap"]) == 2
    assert "did not map" in capsys.readouterr().err
