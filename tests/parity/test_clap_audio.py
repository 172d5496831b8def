"""The sound half of CLAP against every stored tensor: clip lengths, log-mels, HTSAT and what lies inside it."""

import dataclasses
import json
import random
import re

import pytest
import torch
import torch.nn.functional as F
from closeness import close
from safetensors import safe_open
from safetensors.torch import load_file

from otic.audio import cliplen
from otic.audio.frontend import Frontend, htsat
from otic.models.decibels import normalise
from otic.models.htsat import HTSAT, unstacked
from otic.models.swin import inverse, order
from otic.weights import anyfile
from otic.weights.pickles import load_pickle
from otic.weights.upstream import htsat as converter
from otic.weights.upstream import laion, msclap
from otic.weights.upstream.table import rename

# ---- clip lengths


def test_msclap_crops_repeats_and_flattens(golden):
    paths = sorted(golden("clap").glob("*crop_pad*.json"))
    cases = [case for path in paths for case in json.loads(path.read_text())["cases"]]
    assert cases
    for case in cases:
        channels, samples = case["in_shape"]
        wave = torch.arange(channels * samples, dtype=torch.float64).view(channels, samples)
        draw = random.Random(case["python_random_seed"]).randrange
        ours = cliplen.clips(cliplen.mono(wave, "concat"), case["out_len"], crop="random", draw=draw)
        assert ours.shape == (1, case["out_len"]), case
        expected = {0: case["first_flat_index"], -1: case["last_flat_index"]}
        for key, value in case.items():
            if at := re.fullmatch(r"flat_index_at_(\d+)", key):
                expected[int(at[1])] = value
        assert {i: int(ours[0, i]) for i in expected} == expected, case


# ---- front-ends (their log-mels stand in test_frontends.py)


def test_power_spectra(golden):
    """What lies under the mel matrix."""
    path = golden("clap") / "frontend.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    found = [re.fullmatch(r"(\w+)\.power_item(\d+)_first(\d+)frames", key) for key in tensors]
    assert any(found)
    for match in filter(None, found):
        name, item, count = match[1], int(match[2]), int(match[3])
        hertz, window, hop, mels, low, high = settings[name]
        cfg = htsat(sample_rate=hertz, mel_rate=None, window=window, fft=window, hop=hop, mels=mels)
        mel = Frontend(dataclasses.replace(cfg, low=float(low), high=float(high))).mel
        frames = mel.split(tensors["waveform"][item : item + 1]).part(0, count)
        real, imag = (frames.samples[0] @ mel.spectrum.basis).chunk(2, -1)
        theirs = tensors[match[0]]
        close(match[0], (real.square() + imag.square()) / theirs.max(), theirs / theirs.max(), 1e-5)


@pytest.mark.parametrize("brought", [False, True])
def test_transformers_extractor(golden, brought):
    """Repeat and pad; Slaney filters without fusion, HTK filters with; four channels of what is long."""
    tensors = load_file(golden("clap") / "hf_frontend.safetensors")
    keys = [key.removesuffix(".waveform") for key in tensors if key.endswith(".waveform")]
    assert keys
    for key in keys:
        theirs, wave = tensors[f"{key}.input_features"], tensors[f"{key}.waveform"]
        bank = tensors[f"{key.split('.')[0]}.mel_filters"]
        kind = "htk" if bank.max() > 0.5 else "slaney"  # unscaled triangles reach 1
        cfg = htsat(sample_rate=48000, mel_rate=None, hop=480, fft=2 * (len(bank) - 1), mel=kind, mels=bank.shape[1])
        frontend = Frontend(dataclasses.replace(cfg, window=cfg.fft), bank=bank if brought else None)
        target = cfg.hop * (theirs.shape[1] - 1)
        parts = tensors.get(f"{key}.chunk_starts_front_middle_back")
        ours, longer = cliplen.fused(frontend, wave, target, parts=None if parts is None else tuple(parts.tolist()))
        assert longer == (parts is not None)
        close(key, ours[: len(theirs)], theirs, 5e-3)


def test_a_brought_mel_matrix_is_used(golden):
    """The tiny MS-CLAP file's matrix is none that could be computed; clip-wise scores need it."""
    compared = 0
    for path in sorted(golden("clap").glob("msclap*.pth")):
        io = load_file(path.with_name(f"{path.stem}_io.safetensors"))
        said = json.loads(path.with_name(f"{path.stem}_config.json").read_text())
        loaded = msclap.loaded(load_pickle(path), said, path)
        frontend = Frontend(loaded.frontend, bank=loaded.bank)
        assert torch.equal(frontend.mel.spectrum.bank, loaded.bank)
        with torch.no_grad():
            clip, _ = loaded.encoder.tag(loaded.encoder(frontend(io["waveform"])))
        close(path.name, clip, io["clipwise_output"], 2e-4)
        compared += 1
    assert compared


# ---- HTSAT


def htsat_sets(folder):
    """(name, config, weights, inputs and outputs) of each reduced HTSAT."""
    for path in sorted(folder.glob("*_weights.safetensors")):
        weights = load_file(path)
        if "patch_embed.proj.weight" in weights and "bn0.weight" in weights:
            stem = path.name.removesuffix("_weights.safetensors")
            cfg = json.loads((folder / f"{stem}_config.json").read_text())
            yield stem, cfg, weights, load_file(folder / f"{stem}_io.safetensors")


@pytest.fixture(scope="module")
def sets(golden):
    found = list(htsat_sets(golden("clap")))
    assert found
    return [
        (stem, cfg, build(stem, cfg, weights), Frontend(front(cfg["frontend"])), io) for stem, cfg, weights, io in found
    ]


def build(stem, cfg, weights):
    tensors = rename(weights, converter.AUTHORS, stem)
    made, state = converter.encoder(tensors, cfg["encoder"], stem)
    assert (made.width, made.image) == (cfg["encoder"]["embed_dim"], cfg["encoder"]["spec_size"])
    assert (list(made.depths), list(made.heads)) == (cfg["encoder"]["depths"], cfg["encoder"]["num_heads"])
    encoder = HTSAT(made).eval()
    encoder.load_state_dict(state)
    return encoder


def front(said):
    rate, window = said["sample_rate"], said["window_size"]
    return htsat(
        sample_rate=rate, mel_rate=None, window=window, fft=window, hop=said["hop_size"], mels=said["mel_bins"],
        low=float(said["fmin"]), high=float(said["fmax"]),
    )  # fmt: skip


def waves(cfg, io):
    """Each case's input: stored as floats, as 16-bit integers, or described as a longer version of another."""
    found = {}
    for key, value in io.items():
        if match := re.fullmatch(r"in\.(\w+)\.waveform(_int16)?", key):
            found[match[1]] = (value.float() / 32767 if match[2] else value).reshape(-1, value.shape[-1])
    for name, text in cfg.items():
        if isinstance(text, str) and (match := re.match(r"the (\w+) waveform.* cut to (\d+) samples", text)):
            wave, samples = found[match[1]], int(match[2])
            found[name] = wave.repeat(1, -(-samples // wave.shape[1]))[:, :samples]
    return found


def test_htsat_outputs(sets):
    for stem, cfg, encoder, frontend, io in sets:
        inputs = waves(cfg, io)
        assert inputs
        for name, wave in inputs.items():
            outputs = {key.removeprefix(f"{name}."): value for key, value in io.items() if key.startswith(f"{name}.")}
            assert outputs, name
            with torch.no_grad():
                spec = frontend(wave)
                encoded = encoder(spec)
                clip, steps = encoder.tag(encoded)
                image = (
                    encoder.image(normalise(encoder.input_norm, spec))
                    if len(spec[0, 0]) <= encoder.cfg.frames
                    else None
                )
            time, freq = encoder.grid(spec.shape[2])
            assert encoded.patches.shape[1] == time * freq
            for key, theirs in outputs.items():
                where = f"{stem} {name}.{key}"
                if key in ("latent_output", "embedding"):
                    close(where, encoded.patches.mean(1), theirs, 2e-4)
                elif key == "clipwise_output":
                    close(where, clip, theirs, 2e-4)
                elif key == "framewise_output":
                    close(where, steps.repeat_interleave(theirs.shape[1] // steps.shape[1], 1), theirs, 2e-4)
                elif rows := re.findall(r"row(\d+)", key):
                    close(where, image[0, 0, [int(row) for row in rows]], theirs, 5e-4)


def test_htsat_inside(sets):
    """After each part, in the reference's order of tokens: row by row."""
    compared = 0
    for stem, cfg, encoder, frontend, io in sets:
        inside = inside_of(encoder, {name: frontend(wave) for name, wave in waves(cfg, io).items()})
        for key, theirs in io.items():
            if match := re.fullmatch(r"(\w+)\.item(\d+)\.(\w+)", key):
                ours = inside[match[1]][match[3]][int(match[2])][None]
                ours = ours if theirs.ndim != 3 else ours[:, : theirs.shape[1]]  # the first tokens are stored
                close(f"{stem} {key}", ours, theirs, 5e-4)
                compared += 1
    assert compared


def inside_of(encoder, specs):
    """What each part makes of each input, in the reference's shapes."""
    window, side = encoder.cfg.window, encoder.cfg.image // encoder.cfg.step
    found, last, final = {}, len(encoder.stages) - 1, unstacked(encoder.side, encoder.cfg.chunks)

    def keep(name, at):
        def hook(_module, _args, output):
            found[current][name] = output[:, inverse(at)]

        return hook

    hooks = [encoder.patch.register_forward_hook(keep("patch_embed", order(side, min(window, side))))]
    for s, stage in enumerate(encoder.stages):
        after = order(side >> s + 1, min(window, side >> s + 1)) if s < last else final
        hooks.append(stage.register_forward_hook(keep(f"layer{s}", after)))
    hooks.append(encoder.norm.register_forward_hook(keep("norm", final)))
    for current, spec in specs.items():
        found[current] = {}
        if spec.shape[2] <= encoder.cfg.frames:
            with torch.no_grad():
                encoder(spec)
                x = normalise(encoder.input_norm, spec)
                found[current] |= {"bn0_out_BMelTime1": x.transpose(1, 3), "image": encoder.image(x)}
    for hook in hooks:
        hook.remove()
    return found


def test_htsat_in_bfloat16(sets):
    for stem, cfg, encoder, frontend, io in sets:
        for name, wave in waves(cfg, io).items():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                ours = encoder(frontend(wave)).patches.float().mean(1)
            alike = F.cosine_similarity(ours, io[f"{name}.latent_output"]).min()
            assert alike >= 0.99995, f"{stem} {name}: cosine {alike:.6f}"


# ---- HTSAT inside whole models


def test_laion_branches(golden):
    """With fusion (four channels, some clips longer) and without, from waves where they are stored."""
    compared = 0
    said = json.loads(next(golden("clap").glob("laion*_config.json")).read_text())
    for path in sorted(golden("clap").glob("laion*.pt")):
        io = load_file(path.with_name(f"{path.stem}_io.safetensors"))
        loaded = laion.loaded(load_pickle(path), said, path)
        cfg = dataclasses.replace(loaded.frontend, quantise=False)  # upstream does so outside the model
        spec = io["mel_fusion"] if "mel_fusion" in io else Frontend(cfg, bank=loaded.bank)(io["waveform"])
        longer = io["longer"].flatten() if "longer" in io else None
        with torch.no_grad():
            encoded = loaded.encoder(spec, longer)
            clip, _ = loaded.encoder.tag(encoded)
        close(f"{path.name} embedding", encoded.patches.mean(1), io["audio_branch_embedding"], 5e-5)
        close(f"{path.name} clipwise", clip, io["audio_branch_clipwise"], 5e-5)
        compared += 1
    assert compared


def test_transformers_towers(golden):
    compared = 0
    for path in sorted(golden("clap").glob("hf_*/model.safetensors")):
        io = load_file(golden("clap") / f"{path.parent.name}_io.safetensors")
        encoder = anyfile.read(path).encoder
        longer = io["is_longer"].flatten() if "is_longer" in io else None
        with torch.no_grad():
            patches = encoder(io["input_features"], longer).patches
        theirs = io["audio_last_hidden_state"]  # [b, d, f, t]
        close(f"{path.parent.name} states", patches, theirs.permute(0, 3, 2, 1).flatten(1, 2), 2e-5)
        close(f"{path.parent.name} pooler", patches.mean(1), io["audio_pooler"], 2e-5)
        compared += 1
    assert compared
