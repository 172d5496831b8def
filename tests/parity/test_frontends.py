"""The front-ends against every stored front-end tensor: EAT, SSAST, Audio-MAE, CLAP, and the sinc resampler."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from closeness import close
from safetensors import safe_open
from safetensors.torch import load_file

from otic.audio import augment
from otic.audio.frontend import Frontend, FrontendConfig, htsat
from otic.audio.melbank import mel_bank
from otic.audio.sinc import sinc_resample

RAW = FrontendConfig(mean=0.0, std=0.5)  # (x - 0) / 1
AUDIOSET = {"mean": -4.2677393, "std": 4.5689974}  # as SSAST and Audio-MAE round it
DATASETS = {
    "audioset": AUDIOSET,
    "esc50": {"mean": -6.6268077, "std": 5.358466},
    "speechcommands": {"mean": -6.845978, "std": 5.5654526},
}
SILENCE = -15.942385
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # of inputs stored alone


def fbank(wave, frames=None, plain=False, **changes):
    """Kaldi log-mel of one wave. [t, f]"""
    return Frontend(dataclasses.replace(RAW, **changes), plain=plain)(wave.reshape(1, -1), frames=frames)[0, 0]


def agree_fbank(name, ours, theirs):
    """EAT's tolerances: 3e-3, 1e-3 where the value exceeds -12, mean 5e-5."""
    close(name, ours, theirs, 3e-3)
    loud = theirs > -12
    if loud.any():  # of a silent clip, nothing is
        close(f"{name} above -12", ours[loud], theirs[loud], 1e-3)
    assert (ours - theirs).abs().mean() <= 5e-5, name


# ---- EAT


@pytest.fixture(scope="module")
def eat(golden):
    return load_file(golden("eat") / "frontend.safetensors")


def cases(tensors, ending):
    return [key.removesuffix(ending) for key in tensors if key.endswith(ending)]


@pytest.mark.parametrize("plain", [False, True])
def test_eat_fbank(eat, plain):
    names = cases(eat, ".wave16k")
    assert names
    for name in names:
        theirs = eat[f"{name}.fbank"]
        agree_fbank(name, fbank(eat[f"{name}.wave16k"], plain=plain, mels=theirs.shape[1]), theirs)


def test_eat_normalised(eat):
    for name in cases(eat, ".wave16k"):
        theirs = eat[f"{name}.normalised"]
        cfg = FrontendConfig(mels=theirs.shape[1])
        ours = Frontend(cfg)(eat[f"{name}.wave16k"][None], frames=len(theirs))[0, 0]
        close(name, ours, theirs, 3e-3 / (2 * 4.569))
        padded = theirs[len(eat[f"{name}.fbank"]) :]
        assert torch.allclose(padded, torch.tensor(0.46706), atol=1e-5) or not len(padded)


def test_eat_whole_way_from_the_file(eat, golden):
    """Resampling, mean, filterbank: from what a user has to the stored features."""
    sources = {}
    for name in cases(eat, ".input"):
        length = len(eat[f"{name}.input"])
        sources[name] = (
            eat[f"{name}.input"],
            min(RATES, key=lambda r: abs(length * 16000 / r - len(eat[f"{name}.wave16k"]))),
        )
    for path in sorted(golden("eat").glob("*.wav")):
        samples, hertz = soundfile.read(path, dtype="float32")
        wave = torch.from_numpy(samples)
        ours = sinc_resample(wave, hertz, 16000)
        left = {n: eat[f"{n}.wave16k"] - ours for n in cases(eat, ".wave16k")
                if n not in sources and len(eat[f"{n}.wave16k"]) == len(ours)}  # fmt: skip
        assert left, f"{path.name}: no case has its {len(ours)} samples"
        sources[min(left, key=lambda name: float(left[name].var()))] = wave, hertz
    assert set(sources) == set(cases(eat, ".wave16k"))
    for name, (wave, hertz) in sources.items():
        ours = sinc_resample(wave, hertz, 16000)
        close(f"{name} resampled", ours - ours.mean(), eat[f"{name}.wave16k"], 1e-5)
        theirs = eat[f"{name}.fbank"]
        agree_fbank(name, fbank(ours, mels=theirs.shape[1]), theirs)


def test_eat_silence_and_bank(eat):
    theirs = eat["silence.fbank"]
    samples = 400 + 160 * (len(theirs) - 1)
    ours = fbank(torch.zeros(samples), mels=theirs.shape[1])
    close("silence", ours, theirs, 1e-5)
    assert float(ours.max()) == pytest.approx(SILENCE, abs=1e-5)
    theirs = eat["silence.normalised"]
    frontend = Frontend(FrontendConfig(mels=theirs.shape[1]))
    close("silence normalised", frontend(torch.zeros(1, samples), frames=len(theirs))[0, 0], theirs, 1e-5)
    bank = next(v for k, v in eat.items() if k.startswith("mel_filterbank")).mT
    ours = Frontend(dataclasses.replace(RAW, mels=bank.shape[1])).mel.spectrum.bank
    close("bank", ours[: len(bank)], bank, 5e-5)  # theirs was computed in float32
    assert not ours[len(bank) :].any()


def test_the_empty_bands_stay_at_the_floor(eat):
    """Where bands are narrower than bins, some weigh none: of 128, the fourth."""
    for name in cases(eat, ".wave16k"):
        mels = eat[f"{name}.fbank"].shape[1]
        empty = ~Frontend(dataclasses.replace(RAW, mels=mels)).mel.spectrum.bank.any(0)
        assert mels != 128 or empty.nonzero().flatten().tolist() == [3]
        for plain in (False, True):
            columns = fbank(eat[f"{name}.wave16k"], plain=plain, mels=mels)[:, empty]
            assert torch.allclose(columns, torch.tensor(SILENCE), atol=1e-5)


# ---- SSAST


@pytest.fixture(scope="module")
def ssast(golden):
    folder = golden("ssast")
    waves = {}
    for path in sorted(folder.glob("*.wav")):
        samples, hertz = soundfile.read(path, dtype="int16", always_2d=True)
        assert hertz == 16000
        wave = torch.from_numpy(samples.astype(np.float32) / 32768)
        waves[path.stem] = wave - wave.mean(), wave  # over all channels; then only the first is analysed
    arrays = {k: torch.from_numpy(v) for k, v in np.load(folder / "frontend.npz").items()}
    return arrays, waves, json.loads((folder / "augment.json").read_text())


def test_ssast_raw(ssast):
    arrays, waves, _ = ssast
    names = cases(arrays, "_raw")
    assert names
    for name in names:
        close(name, fbank(waves[name][0][:, 0], subtract_mean=False), arrays[f"{name}_raw"], 1e-3)


def test_ssast_training_and_superb_paths(ssast):
    arrays, waves, _ = ssast
    seen = set()
    for key, theirs in arrays.items():
        for name, (centred, wave) in waves.items():
            if key.startswith(f"{name}_train"):
                cfg = FrontendConfig(**AUDIOSET, subtract_mean=False)
                ours = Frontend(cfg)(centred[None, :, 0], frames=len(theirs))[0, 0]
            elif key.startswith(f"{name}_superb"):
                cfg = FrontendConfig(**AUDIOSET, subtract_mean=False, pad="normalised")
                ours = Frontend(cfg)(wave[None, :, 0], frames=len(theirs))[0, 0]
            else:
                continue
            close(key, ours, theirs, 1.2e-4)
            seen.add("train" if "_train" in key else "superb")
    assert seen == {"train", "superb"}


def test_ssast_mixed_waves(ssast):
    arrays, waves, _ = ssast
    mixes = [key for key in arrays if key.startswith("mix_")]
    assert mixes
    for key in mixes:
        pairs = ((a, b) for a in waves for b in waves if key.startswith(f"mix_{a}_{b}_lam"))
        first, second = next(pairs)
        share = re.search(r"_lam([\d.]+)", key)[1]
        mixed = augment.mix(waves[first][1][:, 0], waves[second][1][:, 0], float(share))
        close(key, fbank(mixed, frames=len(arrays[key])), arrays[key], 1e-3)


def test_ssast_training_items(ssast):
    arrays, waves, meta = ssast
    order = list(waves)  # alphabetical
    for key, item in meta["dataset_items"].items():
        cfg = item["config"]
        stats = {"mean": cfg.get("mean", AUDIOSET["mean"]), "std": cfg.get("std", AUDIOSET["std"])}
        frontend = Frontend(FrontendConfig(**stats))
        wave = waves[order[item["index"]]][0][:, 0]
        if item["mix_index"] is not None:
            wave = augment.mix(wave, waves[order[item["mix_index"]]][0][:, 0], item["mix_lambda"])
        spec = frontend(wave[None], frames=cfg["target_length"])
        gen = torch.Generator().manual_seed(item["seed"])
        masks = {name: (start, width) for name, start, width in item["masks_start_len"]}
        drawn = []
        for name, size in (("freqm", spec.shape[3]), ("timem", spec.shape[2])):
            if cfg[name]:  # else upstream draws nothing
                strip = augment.strip(torch.cat([torch.rand(1, generator=gen) for _ in range(2)]), size, cfg[name])
                start, width = masks.pop(name, (None, 0))  # of an empty strip no start is known
                assert strip[1] == width and start in (None, int(strip[0])), f"{key} {name}"
                drawn.append(strip[None])
            else:
                drawn.append(None)
        assert not masks, f"{key}: not compared: {sorted(masks)}"
        spec = augment.hide(spec, freq=drawn[0], time=drawn[1], value=frontend.pad_value)
        if item["noise_u"] is not None:
            field = torch.rand(spec.shape[2:], generator=gen)[None, None]
            spec = augment.noise_and_shift(spec, field, torch.tensor([item["noise_u"]]), torch.tensor([item["roll"]]))
        close(key, spec[0, 0], arrays[key], 1.2e-4)


def test_ssast_specaugment_table(ssast):
    _, _, meta = ssast
    for row in meta["specaug"]:
        gen = torch.Generator().manual_seed(row["seed"])
        draws = torch.cat([torch.rand(1, generator=gen) for _ in range(4)])
        for uniform, size, widest, (start, width) in (
            (draws[:2], 128, row["freqm"], row["f"]),
            (draws[2:], row["T"], row["timem"], row["t"]),
        ):
            ours = augment.strip(uniform, size, widest).tolist()
            assert ours[1] == width and (start is None or ours[0] == start), row


# ---- Audio-MAE


def test_audiomae(golden):
    folder = golden("audiomae")
    tensors = load_file(folder / "frontend.safetensors")
    meta = json.loads((folder / "frontend.json").read_text())
    names = cases(tensors, ".wav")
    assert names
    for name in names:
        theirs = tensors[f"{name}.fbank"]
        agree_fbank(name, fbank(tensors[f"{name}.wav"], mels=theirs.shape[1]), theirs)
        theirs = tensors[f"{name}.norm"]
        cfg = FrontendConfig(**DATASETS[meta[name]["dataset"]], mels=theirs.shape[-1])
        close(name, Frontend(cfg)(tensors[f"{name}.wav"], frames=theirs.shape[-2])[0], theirs, 3e-3 / (2 * cfg.std))


# ---- CLAP


def clap_settings(path: Path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["settings"])


def clap_config(setting):
    """The front-end of one of the set's settings."""
    hertz, window, hop, mels, low, high = setting
    shape = {"window": window, "fft": window, "hop": hop, "mels": mels, "low": float(low), "high": float(high)}
    return htsat(sample_rate=hertz, mel_rate=None, **shape)


@pytest.mark.parametrize("plain", [False, True])
def test_clap(golden, plain):
    path = golden("clap") / "frontend.safetensors"
    tensors, settings = load_file(path), clap_settings(path)
    assert settings
    for name, setting in settings.items():
        frontend = Frontend(clap_config(setting), plain=plain)
        close(f"{name} melW", frontend.mel.spectrum.bank, tensors[f"{name}.melW"], 1e-6)
        close(name, frontend(tensors["waveform"]), tensors[f"{name}.logmel"], 1e-3)
        if f"{name}.zeros_logmel" in tensors:
            ours = frontend(tensors["zeros_waveform"])
            close(f"{name} silence", ours, tensors[f"{name}.zeros_logmel"], 0)
            assert ours.unique().tolist() == [-100.0]


def test_a_checkpoint_may_bring_its_own_mel_matrix(golden):
    """MS-CLAP's filters are built for another rate than its waves have: they are loaded, not computed."""
    path = golden("clap") / "frontend.safetensors"
    tensors, settings = load_file(path), clap_settings(path)
    pairs = [(a, b) for a in settings for b in settings if a != b and settings[a][1:4] == settings[b][1:4]]
    if not pairs:
        pytest.skip("no two settings of this set differ in their filters alone")
    first, second = pairs[0]
    frontend = Frontend(clap_config(settings[second]))
    frontend.load_state_dict({"mel.spectrum.bank": tensors[f"{first}.melW"]})
    close(f"{second} with {first}'s filters", frontend(tensors["waveform"]), tensors[f"{first}.logmel"], 1e-3)


def test_hf_extractor_front_end(golden):
    """The log-mel under the extractor: what is short is repeated and padded first, as it does."""
    tensors = load_file(golden("clap") / "hf_frontend.safetensors")
    found = 0
    for key in cases(tensors, ".input_features"):
        kind = key.split(".")[0]
        theirs, wave = tensors[f"{key}.input_features"], tensors[f"{key}.waveform"]
        longest = 480 * (theirs.shape[1] - 1)
        bins, mels = tensors[f"{kind}.mel_filters"].shape
        size = {"fft": 2 * (bins - 1), "window": 2 * (bins - 1), "mels": mels}
        cfg = htsat(sample_rate=48000, mel_rate=None, hop=480, mel="slaney" if kind == "unfused" else "htk", **size)
        bank = mel_bank(cfg.mel, rate=48000, fft=cfg.fft, mels=mels, low=cfg.low, high=cfg.high)
        close(f"{kind} filters", bank, tensors[f"{kind}.mel_filters"], 1e-6)
        if f"{key}.chunk_starts_front_middle_back" in tensors:
            whole = Frontend(cfg)(wave[None])[0, 0]
            starts = tensors[f"{key}.chunk_starts_front_middle_back"].tolist()
            ours = torch.stack([whole[s : s + theirs.shape[1]] for s in starts])
            close(key, ours, theirs[1:], 5e-3)  # channel 0 is a shrunk picture of the whole: fusion, not front-end
        else:
            wave = wave.repeat(max(1, longest // len(wave)))
            wave = torch.nn.functional.pad(wave, (0, max(0, longest - len(wave))))
            close(key, Frontend(cfg)(wave[None])[0], theirs, 5e-3)
        found += 1
    assert found


def test_resampler(golden):
    tensors = load_file(golden("clap") / "resample.safetensors")
    names = cases(tensors, ".in")
    assert names
    for name in names:
        old, new = map(int, name.split("_"))
        close(name, sinc_resample(tensors[f"{name}.in"], old, new), tensors[f"{name}.out"], 2e-5)
