"""HTSAT and the Swin stages below it, against their formulas written again."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio.frontend import htsat
from otic.core.ema import ema_copy, ema_update
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.decibels import crop, normalise, stripe
from otic.models.htsat import HTSAT, HTSATConfig, stretch, unstacked
from otic.models.swin import Stage, inverse, offsets, order, quads, shuffle
from otic.weights import store

TINY = HTSATConfig(
    width=8, depths=(2, 3), heads=(2, 4), window=4, image=32, mels=8, classes=5, time_stripe=9, mel_stripe=3
)
FUSED = dataclasses.replace(TINY, fusion=True)


PICTURE = HTSAT(TINY).image


def lively(cfg=TINY):
    """Weights and statistics of a size that shows."""
    encoder, gen = HTSAT(cfg).eval(), generator("lively")
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    0.3 * torch.randn(tensor.shape, generator=gen)
                    + float(name.endswith(("norm1.weight", "norm2.weight")))
                )
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return encoder


def clips(count=2, frames=100, mels=8, channels=1):
    return torch.randn(count, channels, frames, mels, generator=generator("clips"))


def encode(encoder, spec, *args, **kwargs):
    with torch.no_grad():
        return encoder(spec, *args, **kwargs).patches


# ---- the picture


def cubic(x, a=-0.75):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("old, new", [(5, 16), (16, 16), (97, 128), (1, 4)])
def test_stretching_is_bicubic_with_fixed_ends(old, new):
    expected = torch.zeros(new, old)
    for i in range(new):
        place = i * (old - 1) / (new - 1)
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            expected[i, min(max(tap, 0), old - 1)] += cubic(place - tap)
    torch.testing.assert_close(stretch(old, new, torch.device("cpu")), expected, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 128))
def test_the_picture_stacks_pieces_of_the_stretched_time(frames):
    x = clips(2, frames)
    image = PICTURE(x)
    wide = F.interpolate(x, (128, 8), mode="bicubic", align_corners=True)
    for piece in range(4):
        torch.testing.assert_close(image[:, :, 8 * piece : 8 * piece + 8], wide[:, :, 32 * piece : 32 * piece + 32].mT)


def test_few_mel_bins_are_stretched_too():
    cfg = dataclasses.replace(TINY, mels=6, image=32, depths=(1,), heads=(2,), window=2)  # 5 pieces would not divide
    with pytest.raises(ConfigError, match="does not divide"):
        HTSAT(cfg)
    cfg = dataclasses.replace(TINY, mels=7)  # 4 pieces of 8 rows
    image = HTSAT(cfg).image(clips(1, 128, 7))
    wide = F.interpolate(clips(1, 128, 7), (128, 8), mode="bicubic", align_corners=True)
    torch.testing.assert_close(image[0, 0, :8], wide[0, 0, :32].T)


def test_unstacked_tokens_are_time_major():
    side, chunks = 8, 4
    bands = side // chunks
    numbers = unstacked(side, chunks).tolist()
    for chunk in range(chunks):
        for band in range(bands):
            for column in range(side):
                time = side * chunk + column
                assert numbers[bands * time + band] == (bands * chunk + band) * side + column


def test_a_sound_moves_the_tokens_of_its_time():
    """Only the last stage, one window, mixes all: with values switched off there, tokens stay where the sound is."""
    encoder = lively()
    with torch.no_grad():
        for block in (b for stage in encoder.stages for b in stage.blocks):
            block.attn.out.weight.zero_()
    spec = clips(1, 128)
    louder = spec.clone()
    louder[:, :, 40:48] += 1
    moved = (encode(encoder, spec) - encode(encoder, louder)).abs().amax(-1)[0]
    assert moved.nonzero().flatten().tolist() == [5]  # frames 40 to 47 of 128, 16 steps


def test_a_matrix_kept_by_inference_serves_training():
    encoder, spec = lively(), clips(1, 77).requires_grad_()
    with torch.inference_mode():
        before = encoder(clips(1, 77)).patches
    after = encoder(spec).patches
    after.sum().backward()
    torch.testing.assert_close(after, before)
    assert spec.grad.any()


# ---- stages


def plain_stage(stage, image):
    """The same blocks on a picture [b, side, side, d], rolled and cut window by window."""
    window, side = stage.window, stage.side
    shift = 0 if stage.there is None else window // 2
    for i, block in enumerate(stage.blocks):
        s = shift if i % 2 else 0
        x = block.norm1(image).roll((-s, -s), (1, 2))
        out = torch.zeros_like(x)
        for top in range(0, side, window):
            for left in range(0, side, window):
                rows, columns = (slice(a, a + window) for a in (top, left))
                places = [(top + r, left + c) for r in range(window) for c in range(window)]
                region = [tuple(region_of(at, side, window, s) for at in place) for place in places]
                area = x[:, rows, columns]
                out[:, rows, columns] = plain_attention(block.attn, area.flatten(1, 2), region, window).view_as(area)
        image = image + out.roll((s, s), (1, 2))
        image = image + block.mlp(block.norm2(image).flatten(1, 2)).view_as(image)
    return image


def region_of(at, side, window, shift):
    return 0 if not shift or at < side - window else 1 if at < side - shift else 2


def plain_attention(attn, tokens, region, window):
    heads, e = attn.heads, tokens.shape[-1] // attn.heads
    q, k, v = attn.qkv(tokens).chunk(3, -1)
    parts = []
    for h in range(heads):
        mine = slice(h * e, h * e + e)
        scores = q[..., mine] @ k[..., mine].mT * e**-0.5
        for i in range(len(region)):
            for j in range(len(region)):
                rows, columns = i // window - j // window, i % window - j % window
                scores[:, i, j] += attn.rel_bias[(rows + window - 1) * (2 * window - 1) + columns + window - 1, h]
                scores[:, i, j] += 0.0 if region[i] == region[j] else -100.0
        parts.append(scores.softmax(-1) @ v[..., mine])
    return attn.out(torch.cat(parts, -1))


@pytest.mark.parametrize("side, depth, grad", [(8, 3, False), (8, 2, True), (4, 2, False)])
def test_a_stage_is_its_formula(side, depth, grad):
    stage = Stage(side, 8, 2, 32, 4, [0.0] * depth, 1e-5, torch.arange(side * side)).eval()
    gen = generator("stage")
    for p in stage.parameters():
        p.data.normal_(0.0, 0.5, generator=gen)
    image = torch.randn(3, side, side, 8, generator=gen)
    with torch.set_grad_enabled(grad):
        ours = stage(image.flatten(1, 2)[:, order(side, 4)])
        torch.testing.assert_close(ours, plain_stage(stage, image).flatten(1, 2), atol=2e-5, rtol=1e-5)


def test_merging_takes_four_neighbours():
    stage = Stage(4, 2, 1, 4, 2, [], 1e-5)
    image = torch.randn(1, 4, 4, 2, generator=generator("merge"))
    quarters = torch.cat([image[:, 0::2, 0::2], image[:, 1::2, 0::2], image[:, 0::2, 1::2], image[:, 1::2, 1::2]], -1)
    expected = stage.merge.reduction(stage.merge.norm(quarters)).flatten(1, 2)
    ours = stage(image.flatten(1, 2)[:, order(4, 2)])  # without blocks; the next picture is one window
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("side, window, shift", [(8, 4, 2), (8, 2, 1), (4, 4, 0)])
def test_orders_are_permutations(side, window, shift):
    for numbers in (order(side, window, shift), quads(side, min(window, side // 2))):
        assert sorted(numbers.tolist()) == list(range(side * side))
        assert numbers[inverse(numbers)].tolist() == list(range(side * side))
    assert offsets(window).shape == (window**2, window**2) and offsets(window).max() == (2 * window - 1) ** 2 - 1


def test_the_gradient_of_a_shuffle():
    gen = generator("shuffle")
    x, weight = (torch.randn(2, 6, 3, generator=gen, dtype=torch.float64) for _ in range(2))
    to = torch.randperm(6, generator=gen)
    x.requires_grad_()
    ours, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (shuffle(x, to, inverse(to)), x[:, to]))
    assert torch.equal(ours, theirs)
    assert torch.autograd.gradcheck(lambda x: shuffle(x, to, inverse(to)), x)
    assert torch.autograd.gradgradcheck(lambda x: shuffle(x, to, inverse(to)), x)


def test_the_kept_bias_follows_the_weights():
    """Steps, averages, loading, types: whatever changes the table changes what comes out."""
    student, spec = lively(), clips(1)
    teacher = ema_copy(student)
    first = encode(teacher, spec)
    tables = [p for name, p in student.named_parameters() if name.endswith("rel_bias")]
    for table in tables:
        table.grad = torch.ones_like(table).cumsum(0)
    torch.optim.SGD(tables, lr=0.1, foreach=True).step()
    changed = encode(student, spec)
    assert not torch.allclose(changed, first)
    ema_update(teacher, student, decay=0.5)
    between = encode(teacher, spec)
    assert not torch.allclose(between, first) and not torch.allclose(between, changed)
    teacher.load_state_dict(student.state_dict())
    assert torch.equal(encode(teacher, spec), changed)
    assert encode(teacher.double(), spec).dtype == torch.float64
    teacher.float()
    with torch.inference_mode():
        assert torch.equal(teacher(spec).patches, changed)
    assert torch.equal(encode(teacher, spec), changed)


# ---- the encoder


@pytest.mark.parametrize("frames", [1, 60, 128, 129, 300])
def test_grid_names_the_tokens(frames):
    encoder = lively()
    time, freq = encoder.grid(frames)
    assert encode(encoder, clips(1, frames)).shape == (1, time * freq, encoder.width) == (1, time * freq, 16)


def test_one_clip_one_vector():
    """Alone, in company, in another order: the same tokens."""
    encoder, spec = lively(), clips(3)
    together = encode(encoder, spec)
    for i in range(3):
        torch.testing.assert_close(encode(encoder, spec[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encode(encoder, spec.flip(0)), together.flip(0), atol=1e-5, rtol=1e-5)


def test_long_input_is_the_windows_side_by_side():
    """MS-CLAP's 689 frames every 344, of 1024, in this picture's measure: 86 every 43, of 128."""
    encoder, spec = lively(), clips(2, 300)
    encoded = encoder(spec)
    windows = [encoder(spec[:, :, a : a + 86]) for a in range(0, 300 - 87, 43)]
    torch.testing.assert_close(encoded.patches, torch.cat([w.patches for w in windows], 1))
    clip, steps = encoder.tag(encoded)
    torch.testing.assert_close(clip, torch.stack([encoder.tag(w)[0] for w in windows]).mean(0))
    torch.testing.assert_close(steps, torch.stack([encoder.tag(w)[1] for w in windows]).mean(0))
    beginning = lively(dataclasses.replace(TINY, long="cut"))
    assert torch.equal(encode(beginning, spec), encode(encoder, spec[:, :, :128]))


@pytest.mark.parametrize(("image", "mels", "frames"), [(192, 48, 768), (256, 32, 2048)])
def test_windows_are_as_long_whatever_the_picture(image, mels, frames):
    """689 frames every 344 are constants of MS-CLAP's code, which takes them of any picture that can hold them."""
    cfg = HTSATConfig(width=8, depths=(1, 1), heads=(2, 2), window=image // 16, patch=8, image=image, mels=mels)
    encoder, spec = lively(cfg), torch.randn(1, 1, frames + 300, mels, generator=generator("long"))
    windows = [encoder(spec[:, :, a : a + 689]).patches for a in range(0, frames + 300 - 690, 344)]
    torch.testing.assert_close(encoder(spec).patches, torch.cat(windows, 1))


def test_tags_are_a_convolution_over_time():
    encoder = lively()
    encoded = encoder(clips(2))
    clip, steps = encoder.tag(encoded)
    weight, bias = encoder.tagger.weight[:, :, 0], encoder.tagger.bias  # one band: [k, d, 3]
    series = F.pad(encoded.patches, (0, 0, 1, 1))
    logits = torch.stack([torch.einsum("bjd,kdj->bk", series[:, t : t + 3], weight) + bias for t in range(16)], 1)
    torch.testing.assert_close(steps, logits.sigmoid())
    torch.testing.assert_close(clip, logits.mean(1).sigmoid())
    with pytest.raises(ConfigError, match="classes=0"):
        lively(dataclasses.replace(TINY, classes=0)).tag(encoded)


def test_input_is_normalised_by_mel_bin():
    encoder, spec = lively(), 20 * clips() - 50
    norm = encoder.input_norm
    expected = (spec - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(normalise(norm, spec), expected, atol=1e-4, rtol=1e-4)
    norm.train()
    ours = normalise(norm, spec)
    var, mean = torch.var_mean(spec, (0, 1, 2), correction=0)
    torch.testing.assert_close(
        ours, (spec - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias, atol=1e-4, rtol=1e-4
    )


def test_bfloat16_is_close():
    encoder, spec = lively(), 20 * clips() - 50
    exact = encode(encoder, spec).mean(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.cosine_similarity(encode(encoder, spec).float().mean(1), exact).min() > 0.999
    assert F.cosine_similarity(encode(encoder.bfloat16(), spec).float().mean(1), exact).min() > 0.99


# ---- training


@pytest.mark.parametrize("cfg", [TINY, FUSED])
def test_training_draws_from_the_generator_alone(cfg):
    cfg = dataclasses.replace(cfg, drop_path=0.5)
    spec, encoders = clips(4, 200, channels=4 if cfg.fusion else 1), [HTSAT(cfg).train() for _ in range(3)]
    state = torch.get_rng_state()
    first, again, other = (e(spec, gen=generator(s)).patches for e, s in zip(encoders, (0, 0, 1), strict=True))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(AssertionError, match="pass gen"):
        HTSAT(cfg).train()(spec)


@pytest.mark.parametrize("cfg", [TINY, FUSED])
def test_gradients_reach_every_parameter(cfg):
    encoder = HTSAT(dataclasses.replace(cfg, drop_path=0.0)).train()
    encoded = encoder(clips(4, channels=4 if cfg.fusion else 1), gen=generator(0))
    (encoded.patches.square().mean() + encoder.tag(encoded)[0].mean()).backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before a batch norm is subtracted again, and so is the fused tokens' own where one vector is averaged
    assert not [name for name in silent if not name.startswith("fusion.")], silent


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 70), mels=st.integers(1, 12), seed=st.integers(0, 99))
def test_stripes(frames, mels, seed):
    x = torch.ones(3, 2, frames, mels)
    striped = stripe(x, 2, (20, 5), generator(seed))
    assert torch.equal(striped[:, 0], striped[:, 1])
    for clip in striped[:, 0]:
        rows, columns = (~clip.any(1)).sum(), (~clip.any(0)).sum()
        if clip.any():
            assert rows <= 2 * 19 and columns <= 2 * 4
            assert torch.equal(clip, clip.any(1)[:, None].float() * clip.any(0).float())
    assert torch.equal(stripe(x, 2, (0, 0), None), x)


def test_crops_lie_inside_the_clip():
    x = torch.arange(50.0)[None, None, :, None].expand(200, 2, -1, 3)
    pieces = crop(x, 48, generator(0))
    assert set(pieces[:, 0, 0, 0].tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(pieces - pieces[:, :, :1], torch.arange(48.0)[None, None, :, None].expand(200, 2, -1, 3))


def test_initial_weights():
    encoder = HTSAT(TINY)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), HTSAT(TINY).parameters(), strict=True))
    other = HTSAT(TINY, generator(1))
    assert not torch.equal(encoder.patch.proj.weight, other.patch.proj.weight)
    for stage in encoder.stages:
        for block in stage.blocks:
            assert 0.015 < block.mlp.fc1.weight.std() < 0.025 and not block.mlp.fc1.bias.any()
            assert block.attn.rel_bias.std() < 0.03 and block.attn.rel_bias.any()
            assert block.norm1.weight.eq(1).all() and not block.norm1.bias.any()


# ---- fusion


def test_only_longer_clips_are_fused():
    encoder, spec = lively(FUSED), clips(3, channels=4)
    longer = torch.tensor([False, True, False])
    plain, fused = encode(encoder, spec), encode(encoder, spec, longer)
    assert torch.equal(plain, encode(encoder, spec, torch.zeros(3, dtype=torch.bool)))
    torch.testing.assert_close(plain, encode(encoder, spec[:, :1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused[[0, 2]], plain[[0, 2]], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(fused[1], plain[1], atol=1e-3)
    torch.testing.assert_close(encode(encoder, spec[1:2], longer[1:2])[0], fused[1], atol=1e-5, rtol=1e-5)


def test_fusion_is_its_formula():
    fusion = lively(FUSED).fusion
    gen = generator("fusion")
    whole, pictures = torch.randn(2, 8, 8, 8, generator=gen), torch.randn(2, 3, 32, 32, generator=gen)

    def gate(x, layers):
        conv1, norm1, _, conv2, norm2 = layers
        return norm2(conv2(norm1(conv1(x)).relu()))

    parts = torch.zeros_like(whole)
    parts[..., :6] = torch.cat([fusion.proj(pictures[:, i : i + 1]) for i in range(3)], 3)  # two columns each
    both = whole + parts
    weight = (gate(both, fusion.local) + gate(both.mean((2, 3), keepdim=True), fusion.whole[1:])).sigmoid()
    torch.testing.assert_close(fusion(whole, pictures), 2 * whole * weight + 2 * parts * (1 - weight))


def test_fusion_trains_on_one_clip_at_least():
    encoder = HTSAT(FUSED).train()
    for longer in (None, torch.zeros(3, dtype=torch.bool), torch.tensor([False, True, False])):
        encoder.zero_grad()
        encoder(clips(3, channels=4), longer, gen=generator(0)).patches.square().sum().backward()
        assert encoder.fusion.proj.weight.grad.any()


# ---- config and file


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": (2, 3)}, "heads"),
        ({"heads": (2,)}, "heads"),
        ({"image": 36}, "does not divide"),
        ({"mels": 64}, "mels=64"),
        ({"window": 3}, "window=3"),
    ],
)
def test_impossible_shapes_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        HTSAT(dataclasses.replace(TINY, **change))


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match="16 mel bins, but this encoder wants 8"):
        HTSAT(TINY)(clips(mels=16))
    with pytest.raises(ConfigError, match="at least one"):
        HTSAT(TINY).grid(0)


@pytest.mark.parametrize("cfg", [TINY, FUSED])
def test_saved_and_loaded(tmp_path, cfg):
    encoder = lively(cfg)
    store.save(tmp_path / "htsat.safetensors", encoder, htsat(mels=8), {"name": "tiny"})
    loaded = store.load(tmp_path / "htsat.safetensors")
    assert loaded.encoder.cfg == cfg
    assert torch.equal(encode(loaded.encoder, clips()), encode(encoder, clips()))


def test_base_size():
    """Spec: 30,241,687 parameters with the tagger and an unused Linear(527, 527); 27,534,488 without both."""
    with torch.device("meta"):
        encoder = HTSAT(HTSATConfig(classes=0))
    assert sum(p.numel() for p in encoder.parameters()) == 27_534_488
    assert (encoder.steps, encoder.bands, encoder.width) == (32, 2, 768)
