"""CLAP's published layouts against what their own code makes of the same files: both towers, heads, scores.

Every file of the set is loaded and every tensor stored beside it is computed again. Sizes come from the files;
what shapes do not tell, from the json beside them. Tolerances are the set's.
"""

import json
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from closeness import close
from safetensors.torch import load_file

import otic
from otic.audio.frontend import Frontend
from otic.models.joint_heads import MLPHead, ResidualHead
from otic.models.tokenizer import Tokens
from otic.weights.pickles import load_pickle
from otic.weights.upstream import hf_clap, laion, msclap

GIVEN = {
    "waveform", "input_ids", "attention_mask", "token_type_ids", "input_features", "is_longer", "mel_fusion", "longer",
}  # fmt: skip


def cases(path):
    """(name, tensors) of each case of a file: `a.waveform` belongs to case `a`."""
    found = {}
    for name, tensor in load_file(path).items():
        case, _, key = name.rpartition(".")
        found.setdefault(case, {})[key] = tensor
    return [(f"{path.name} {case}".strip(), values) for case, values in found.items()]


def config_of(path, pattern):
    """The json that describes a checkpoint: of its own name, else the one of its kind."""
    own = path.with_name(f"{path.stem}_config.json")
    return json.loads((own if own.is_file() else next(iter(sorted(path.parent.glob(pattern))))).read_text())


@torch.no_grad()
def outputs(loaded, given):
    """Everything that any of the layouts stores, by the names it is stored under."""
    towers, encoder = loaded.towers, loaded.encoder
    tokens = Tokens(given["input_ids"], given["attention_mask"].bool())
    spec, longer = spectrogram(loaded, given)
    encoded = encoder(spec, longer)
    audio, text = towers.audio(spec, longer=longer), towers.words(tokens)
    a, t = F.normalize(audio, dim=-1), F.normalize(text, dim=-1)
    scales = towers.log_scale.exp()
    scores = scales[0] * a @ t.T
    similarity = scores if len(scales) == 1 else a @ t.T  # the LAION sets keep bare cosines under this name
    pooled, tokens_out = towers.text(*tokens), towers.text.states(*tokens)
    steps, bands = encoder.grid(spec.shape[2])
    out = {
        "audio_embed_unnormalised": audio, "text_embed_unnormalised": text,
        "audio_embed": a, "audio_embeds": a, "text_embed": t, "text_embeds": t,
        "logit_scale_exp": scales[0], "logit_scale_a_exp": scales[0], "logit_scale_t_exp": scales[-1],
        "similarity_audio_by_text": similarity, "softmax_over_text": scores.softmax(1), "logits_per_audio": scores,
        "logits_per_text": scales[-1] * t @ a.T,
        "text_last_hidden_state": tokens_out, "text_pooler": pooled,
        "audio_pooler": encoded.patches.mean(1), "audio_branch_embedding": encoded.patches.mean(1),
        "audio_last_hidden_state": encoded.patches.unflatten(1, (steps, bands)).permute(0, 3, 2, 1),
    }  # fmt: skip
    if encoder.tagger is not None:
        clip, frames = encoder.tag(encoded)
        out |= {"clipwise_output": clip, "audio_branch_clipwise": clip}
        out["framewise_output"] = frames.repeat_interleave(encoder.cfg.frames // frames.shape[1], 1)
    for kind, vectors in (("audio", a), ("text", t)):
        own = {n.removeprefix(f"{kind}_mlp."): v for n, v in loaded.extra.items() if n.startswith(f"{kind}_mlp.")}
        if own:
            head = MLPHead(vectors.shape[1], len(own["linear2.bias"])).eval()
            head.load_state_dict(own)
            out[f"{kind}_features_mlp"] = head(vectors)
    return out


def spectrogram(loaded, given):
    """What goes into the audio tower, and which clips are flagged as longer than it hears."""
    if "waveform" in given:  # as the model's own code takes it: what the loader does before is not in it
        frontend = Frontend(replace(loaded.frontend, quantise=False), bank=loaded.bank)
        return frontend(given["waveform"]), None
    spec = next(given[name] for name in ("mel_fusion", "input_features") if name in given)
    longer = next((given[name] for name in ("longer", "is_longer") if name in given), None)
    return spec, None if longer is None else longer.flatten().bool()


def check(loaded, path, atol):
    for name, given in cases(path):
        found = outputs(loaded, given)
        for key, want in given.items():
            assert key in GIVEN or key in found, f"{name}: nothing here computes {key!r}"
            if key not in GIVEN:
                close(f"{name}: {key}", found[key], want, atol)


def test_msclap(golden):
    root = golden("clap")
    files = sorted(root.glob("msclap*.pth"))
    assert files, f"{root} holds no msclap*.pth"
    for path in files:
        settings = config_of(path, "msclap*config.json")
        settings["gpt2"]["pool"] = "count_nonzero"  # as upstream's code counts
        check(msclap.loaded(load_pickle(path), settings, path), path.with_name(f"{path.stem}_io.safetensors"), 2e-4)


def test_msclap_pools_at_the_end_token_where_upstream_does(golden):
    """Our own rule differs only in texts that hold token 0."""
    for path in sorted(golden("clap").glob("msclap*.pth")):
        settings = config_of(path, "msclap*config.json")
        settings["gpt2"]["eos_id"] = settings["eos_id"]
        towers = msclap.loaded(load_pickle(path), settings, path).towers
        assert towers.cfg.text.pool == "end" and towers.cfg.text.end == settings["eos_id"]
        for name, given in cases(path.with_name(f"{path.stem}_io.safetensors")):
            ids = given["input_ids"]
            end = (ids == settings["eos_id"]).int().argmax(1)
            plain = (ids != 0).sum(1) - 1 == end
            assert plain.any()
            with torch.no_grad():
                text = towers.words(Tokens(ids, given["attention_mask"].bool()))
            close(f"{name}: text", text[plain], given["text_embed_unnormalised"][plain], 2e-4)


def test_msclap_keeps_the_mel_matrix_of_the_file(golden):
    for path in sorted(golden("clap").glob("msclap*.pth")):
        content = load_pickle(path)
        bank = content["model"]["audio_encoder.base.htsat.logmel_extractor.melW"]
        loaded = msclap.loaded(content, config_of(path, "msclap*config.json"), path)
        assert torch.equal(loaded.bank, bank.float())
        assert loaded.card["filterbank"]["highest_bin"] == int(bank.sum(1).nonzero().max())


def test_laion(golden):
    root = golden("clap")
    files = sorted(root.glob("laion*.pt"))
    assert files, f"{root} holds no laion*.pt"
    for path in files:
        loaded = laion.loaded(load_pickle(path), config_of(path, "laion*config.json"), path)
        assert (loaded.bank is None) == loaded.encoder.cfg.fusion
        check(loaded, path.with_name(f"{path.stem}_io.safetensors"), 5e-5)


def test_transformers(golden):
    root = golden("clap")
    files = sorted(p for p in root.glob("*/model.safetensors") if (root / f"{p.parent.name}_io.safetensors").is_file())
    assert files, f"{root} holds no folder with model.safetensors"
    for path in files:
        settings = json.loads(path.with_name("config.json").read_text())
        loaded = hf_clap.loaded(load_file(path), settings, path)
        assert loaded.encoder.cfg.fusion == settings["audio_config"]["enable_fusion"]
        check(loaded, root / f"{path.parent.name}_io.safetensors", 2e-5)


def test_residual_head(golden):
    files = sorted(golden("clap").glob("projection*.safetensors"))
    assert files
    for path in files:
        data = load_file(path)
        weights = {n.removeprefix("w."): t for n, t in data.items() if n.startswith("w.")}
        dim, width = weights["linear1.weight"].shape
        head = ResidualHead(width, dim).eval()
        head.load_state_dict(weights)
        x = data["x"].requires_grad_()
        y = head(x)
        (y * data["loss_weight"]).sum().backward()
        got = {"y": y, "grad_x": x.grad} | {f"grad.{n}": p.grad for n, p in head.named_parameters()}
        for name, want in data.items():
            if name not in ("x", "loss_weight") and not name.startswith("w."):
                close(f"{path.name}: {name}", got[name], want, 1e-5)


@torch.no_grad()
def test_laion_files_are_opened_with_the_json_they_share(golden):
    found = sorted(golden("clap").glob("laion*.pt"))
    assert found
    for path in found:
        said = config_of(path, "laion*config.json")
        model = otic.load(path, device="cpu")
        assert (model.frontend.cfg.hop, model.sample_rate) == (
            said["frontend"]["hop_size"],
            said["frontend"]["sample_rate"],
        )
        for name, given in cases(path.with_name(f"{path.stem}_io.safetensors")):
            text = model.towers.words(Tokens(given["input_ids"], given["attention_mask"].bool()))
            close(f"{name}: text", F.normalize(text, dim=-1), given["text_embed"], 5e-5)


def test_a_file_is_opened_with_the_json_of_its_own_name(golden):
    """Sizes that no shape tells (hop, heads) may stand in `NAME_config.json`."""
    found = [p for p in sorted(golden("clap").glob("msclap_*.pth")) if p.with_name(f"{p.stem}_config.json").is_file()]
    assert found
    for path in found:
        said = json.loads(path.with_name(f"{path.stem}_config.json").read_text())
        model = otic.load(path)
        assert (model.frontend.cfg.hop, model.frontend.cfg.fft) == (
            said["frontend"]["hop_size"],
            said["frontend"]["window_size"],
        )
        assert model.audio([np.zeros(model.sample_rate, np.float32)]).shape == (1, said["d_proj"])
