"""A published CLAP as a user meets it, `Model`: waves in, joint vectors out, as its own code has them."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from otic.audio.frontend import Frontend
from otic.inference.model import Model
from otic.weights.pickles import load_pickle
from otic.weights.upstream import laion, msclap

LAYOUTS = {"msclap": (msclap, 2e-4), "laion": (laion, 5e-5)}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_joint_vectors_of_waves(golden, kind):
    root, (layout, atol) = golden("clap"), LAYOUTS[kind]
    run = 0
    for path in sorted([*root.glob(f"{kind}*.pth"), *root.glob(f"{kind}*.pt")]):
        own = path.with_name(f"{path.stem}_config.json")
        own = own if own.is_file() else next(iter(sorted(root.glob(f"{kind}*config.json"))))
        loaded = layout.loaded(load_pickle(path), json.loads(own.read_text()), path)
        tensors = load_file(path.with_name(f"{path.stem}_io.safetensors"))
        for name, wave in tensors.items():
            case = name.removesuffix("waveform")
            if case == name:
                continue
            want = next(
                tensors[case + key] for key in ("audio_embed", "audio_embed_unnormalised") if case + key in tensors
            )
            rate = loaded.frontend.sample_rate
            front = Frontend(replace(loaded.frontend, quantise=False), bank=loaded.bank)  # the loader's affair upstream
            card = {**loaded.card, "inference": {"window": wave.shape[1] / rate}}  # one window, whatever was stored
            model = Model(loaded.encoder, front, card, towers=loaded.towers, device="cpu")
            off = (torch.from_numpy(model.audio([w.numpy() for w in wave])) - F.normalize(want, dim=-1)).abs()
            assert off.max() <= atol, (
                f"{path.name} {name}: off by {off.max():.3g} at {int(off.argmax())}, allowed {atol}"
            )
            alone = torch.from_numpy(model.audio(wave[-1].numpy())) - F.normalize(want[-1:], dim=-1)
            assert alone.abs().max() <= atol, f"{path.name} {name}: its last clip alone"
            run += 1
    assert run, f"no waveforms for {kind} under {root}"
