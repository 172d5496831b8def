"""Audio-MAE's layout at other sizes, from random weights; the golden files are in tests/parity."""

import pytest
import torch
from safetensors.torch import save_file

import otic
from otic.core.errors import ConfigError, WeightsError
from otic.core.seeds import generator
from otic.models import DecoderShape, TransformerDecoder, ViT, ViTConfig
from otic.models.heads import Head, HeadConfig
from otic.recipes import RECIPES
from otic.weights import anyfile
from otic.weights.catalogue import CATALOGUE
from otic.weights.upstream import audiomae, eat

WIDTH, N = 32, 24
LOCAL = DecoderShape(decoder="local", width=16, depth=2, heads=4, bias_hidden=12, positions="table", table=(N, 1))
GLOBAL = DecoderShape(width=32, depth=1, heads=2, mlp_ratio=2.0, positions="table", table=(N, 1))
PARTS = {"embed": "decoder_embed", "blocks": "decoder_blocks", "norm": "decoder_norm", "proj": "decoder_pred"}


def noisy(module):
    gen = generator("noise")
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for n, b in module.named_buffers() if "coordinates" not in n)):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=gen))
    return module.eval()


def encoder(tuned=False):
    cfg = ViTConfig(width=WIDTH, depth=2, heads=2, norm="pre", positions="table", table=(N, 1), final_norm=not tuned)
    return noisy(ViT(cfg, generator("encoder")))


def decoder(shape):
    return noisy(TransformerDecoder(WIDTH, shape, 256, generator("decoder")))


def layout(net, dec=None, head=None):
    """Upstream's names for our tensors, written again without the converter's table."""
    tensors = {}
    for name, t in net.state_dict().items():
        new = {"extra_tokens": "cls_token", "position_table": "pos_embed"}.get(name, name)
        tensors["patch_embed." + name if name.startswith("proj.") else new] = t
    tensors["pos_embed"] = torch.cat((torch.ones(1, WIDTH), tensors["pos_embed"]))[None]
    tensors["cls_token"] = tensors["cls_token"] - 1
    if dec is not None:
        state = dict(dec.state_dict())
        codes = torch.cat((state.pop("cls_position")[None], state.pop("position_table")))
        tensors |= {"mask_token": state.pop("mask_token"), "decoder_pos_embed": codes[None]}
        for name, t in state.items():
            part, rest = name.split(".", 1)
            tensors[f"{PARTS[part]}.{rest}".replace("attn.bias", "attn.meta_mlp")] = t
    if head is not None:
        for name, t in head.state_dict().items():
            tensors[name.replace("norm.", "fc_norm.").replace("linear.", "head.")] = t
    return {name: t.clone() for name, t in tensors.items()}


SETTINGS = {"num_heads": 2, "decoder_num_heads": 2}


@pytest.mark.parametrize("shape", [LOCAL, GLOBAL])
def test_pretrained_round_trip(tmp_path, shape):
    net, dec = encoder(), decoder(shape)
    path = tmp_path / "pretrained.pth"
    torch.save({"model": layout(net, dec), "epoch": 32}, path)
    found = audiomae.read(path, SETTINGS)
    assert found.decoder == shape and found.head is None
    again, guesser = ViT(found.encoder).eval(), TransformerDecoder(WIDTH, found.decoder, found.pixels).eval()
    again.load_state_dict(found.state)
    guesser.load_state_dict(found.decoder_state)
    spec = torch.randn(2, 1, 48, 128, generator=generator("clip"))
    visible = torch.arange(N).expand(2, -1) % 3 == 0
    ours, theirs = net.encode(net.tokens(spec)[0], visible), again.encode(again.tokens(spec)[0], visible)
    assert torch.allclose(theirs.patches, ours.patches, atol=1e-6) and torch.allclose(theirs.cls, ours.cls, atol=1e-6)
    guesses = [d(ours.patches, visible, (3, 8), ours.cls) for d in (dec, guesser)]
    assert torch.equal(*guesses)
    back = audiomae.convert(audiomae.revert(found), SETTINGS)
    for state, want in ((back.state, found.state), (back.decoder_state, found.decoder_state)):
        assert state.keys() == want.keys() and all(torch.equal(state[k], want[k]) for k in want)


def test_finetuned_and_bare_encoders_load_by_what_they_hold(tmp_path):
    net, head = encoder(tuned=True), noisy(Head(WIDTH, HeadConfig(classes=5, read="mean")))
    save_file(layout(net, head=head), tmp_path / "tuned.safetensors")
    (tmp_path / "config.json").write_text('{"num_heads": 2}')
    loaded = anyfile.read(tmp_path / "tuned.safetensors")
    assert loaded.card["system"] == "Audio-MAE" and loaded.card["labels_used"] != "none"
    assert loaded.encoder.norm is None and loaded.encoder.cfg.heads == 2
    again = Head(WIDTH, HeadConfig(**loaded.extra_config["head"]))
    again.load_state_dict({name.removeprefix("head."): t for name, t in loaded.extra.items()})
    spec = torch.randn(1, 1, 32, 128, generator=generator("clip"))
    assert torch.allclose(again(loaded.encoder(spec)), head(net(spec)), atol=1e-6)
    torch.save(layout(encoder()), tmp_path / "bare.bin")  # timm's names
    loaded = anyfile.read(tmp_path / "bare.bin", CATALOGUE["audiomae-base"])
    assert not loaded.extra and loaded.encoder.norm is not None and loaded.card["name"] == "audiomae-base"
    assert loaded.frontend.mean == -4.2677393 and loaded.frontend.std == 4.5689974


def test_shorter_clips_read_a_prefix_and_longer_ones_are_refused():
    net = encoder()
    found = audiomae.convert(layout(net), SETTINGS)
    again = ViT(found.encoder)
    again.load_state_dict(found.state)
    assert torch.equal(again.positions((2, 8)), net.position_table[:16])
    with pytest.raises(ConfigError, match=r"32 patches, but the position table ends at 24"):
        again.positions((4, 8))


def test_a_window_is_never_longer_than_the_codes(tmp_path):
    torch.save(layout(encoder()), tmp_path / "short.pth")
    (tmp_path / "config.json").write_text('{"num_heads": 2}')
    model = otic.load(tmp_path / "short.pth", device="cpu")
    assert model.options.window == pytest.approx(0.48)  # 24 codes of 8 bands: 3 x 16 frames
    wave = 0.1 * torch.randn(16000, generator=generator("clip")).numpy()
    assert len(model.embed(wave, sample_rate=16000).vectors) == 3


def test_norms_are_never_taken_for_each_other():
    net, head = encoder(tuned=True), Head(WIDTH, HeadConfig(classes=5, read="mean"))
    tuned = layout(net, head=head)
    lacking = {name: t for name, t in tuned.items() if not name.startswith("head.")}
    with pytest.raises(WeightsError, match="'fc_norm' but no 'head'"):
        audiomae.convert(lacking, SETTINGS)
    lacking = {name: t for name, t in tuned.items() if not name.startswith("fc_norm.")}
    with pytest.raises(WeightsError, match=r"\(head\).*missing.*'norm\.bias'"):
        audiomae.convert(lacking, SETTINGS)
    both = {**tuned, "norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
    with pytest.raises(WeightsError, match=r"unexpected.*'norm\.bias'"):
        audiomae.convert(both, SETTINGS)
    with pytest.raises(WeightsError, match=r"missing.*'norm\.bias'"):
        audiomae.convert(layout(net), SETTINGS)


@pytest.mark.parametrize("shape", [None, LOCAL, GLOBAL])
def test_every_missing_tensor_is_named(shape):
    tensors = layout(encoder(), shape and decoder(shape))
    for name in tensors:
        with pytest.raises(WeightsError, match=r"missing|expected|do not fit"):
            audiomae.convert({k: v for k, v in tensors.items() if k != name}, SETTINGS)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors did not map \(first: 'blocks.0.attn.bogus'\)"):
        audiomae.convert({**tensors, "blocks.0.attn.bogus": torch.zeros(1)}, SETTINGS)
    with pytest.raises(WeightsError, match=r"'blocks.0.attn.proj.bias' has the shape \(3,\)"):
        audiomae.convert({**tensors, "blocks.0.attn.proj.bias": torch.zeros(3)}, SETTINGS)
    with pytest.raises(WeightsError, match="settings do not fit"):
        audiomae.convert(tensors, {**SETTINGS, "num_heads": 5})


def test_other_files_are_told_apart(tmp_path):
    images = layout(encoder())
    images["patch_embed.proj.weight"] = torch.zeros(WIDTH, 3, 16, 16)
    for content in ({"a": torch.ones(1)}, images, {"model": images}, [1]):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(WeightsError, match="not an Audio-MAE checkpoint"):
            audiomae.read(tmp_path / "x.pth")
        assert not isinstance(content, dict) or not audiomae.matches(content)
    assert not eat.matches(layout(encoder()))
    (tmp_path / "x.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(WeightsError, match="cannot be read"):
        audiomae.read(tmp_path / "x.safetensors")


def test_published_sizes():
    """The tensors and numbers of the published pre-trained file, and its encoder's parameters."""
    with torch.device("meta"):
        recipe = RECIPES["audiomae_base"]()
        _, objective = recipe.build()
    sizes = [p.numel() for p in objective.parameters()]
    tables = 513 * 768 + 513 * 512  # fixed, with the CLS token's code
    assert (len(sizes) + 2, sum(sizes) + tables) == (430, 136_992_768)
    trained = sum(p.numel() for p in objective.encoder.parameters())
    assert trained == CATALOGUE["audiomae-base"].parameters == CATALOGUE["audiomae-base-as2m"].parameters + 2 * 768
