"""Cnn14 against its formula written again, and what training draws."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from otic.audio.frontend import htsat
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.weights import store

TINY = Cnn14Config(widths=(4, 6, 8), mels=9, classes=5, time_stripe=9, mel_stripe=3)


def lively(cfg=TINY):
    encoder, gen = Cnn14(cfg).eval(), generator("lively")
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=gen) + float(name.endswith("bn1.weight")))
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return encoder


def clips(count=2, frames=43):
    return torch.randn(count, 1, frames, 9, generator=generator("clips"))


def standard(norm, x):
    """Batch norm by its running statistics, channels first."""
    mean, var, weight, bias = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


def test_output_is_its_formula():
    encoder, spec = lively(), clips()
    x = standard(encoder.input_norm, spec.transpose(1, 3)).transpose(1, 3)
    for i, block in encoder.blocks.items():
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            x = standard(norm, F.conv2d(x, conv.weight, padding=1)).relu()
        if i != "3":  # whole cells of 2 x 2 only
            time, freq = x.shape[2] // 2, x.shape[3] // 2
            x = x[:, :, : 2 * time, : 2 * freq].unflatten(3, (freq, 2)).unflatten(2, (time, 2)).mean((3, 5))
    steps = x.mean(3)
    expected = encoder.fc(steps.max(2).values + steps.mean(2)).relu()
    encoded = encoder(spec, taps=True)
    torch.testing.assert_close(encoded.patches, steps.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoded.cls, expected, atol=1e-4, rtol=1e-4)
    assert encoded.layers[0] is encoded.patches
    torch.testing.assert_close(encoder.tag(encoded)[0], encoder.tagger(expected).sigmoid())


def test_a_step_is_tagged_as_a_clip_of_one_step():
    encoder = lively()
    encoded = encoder(clips(1, 4))
    clip, steps = encoder.tag(encoded)
    torch.testing.assert_close(steps[:, 0], clip)
    with pytest.raises(ConfigError, match="classes=0"):
        lively(dataclasses.replace(TINY, classes=0)).tag(encoded)


@pytest.mark.parametrize("frames", [4, 7, 8, 43])
def test_grid_names_the_steps(frames):
    encoder = lively()
    time, freq = encoder.grid(frames)
    assert encoder(clips(1, frames)).patches.shape == (1, time * freq, encoder.width) == (1, frames // 4, 8)


def test_one_clip_one_vector():
    encoder, spec = lively(), clips(3)
    for i in range(3):
        torch.testing.assert_close(encoder(spec[i : i + 1]).cls[0], encoder(spec).cls[i], atol=1e-5, rtol=1e-5)


def test_training_draws_from_the_generator_alone():
    encoder, spec = Cnn14(TINY).train(), clips()
    state = torch.get_rng_state()
    first, again, other = (encoder(spec, gen=generator(seed)).cls for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(AssertionError, match="pass gen"):
        encoder(spec)


def test_gradients_reach_every_parameter():
    encoder = Cnn14(TINY).train()
    encoded = encoder(clips(8), gen=generator(0))
    encoder.tag(encoded)[0].square().mean().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_too_little_is_named():
    with pytest.raises(ConfigError, match="3 frames are less than one step of 4"):
        lively()(clips(1, 3))
    with pytest.raises(ConfigError, match="mels=3"):
        Cnn14(dataclasses.replace(TINY, mels=3))


def test_saved_and_loaded(tmp_path):
    encoder = lively()
    store.save(tmp_path / "cnn14.safetensors", encoder, htsat(mels=9), {"name": "tiny"})
    loaded = store.load(tmp_path / "cnn14.safetensors")
    assert loaded.encoder.cfg == TINY
    assert torch.equal(loaded.encoder(clips()).cls, encoder(clips()).cls)


def test_base_size():
    """Spec: 80,753,615 parameters without the frozen transform and mel matrix."""
    with torch.device("meta"):
        encoder = Cnn14()
    assert sum(p.numel() for p in encoder.parameters()) == 80_753_615
