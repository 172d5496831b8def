"""Tiny CLAP models of ours, and the same written as their authors would: names and extras of the published files."""

import json

import torch
from tokenizers import pre_tokenizers

from otic.audio.melbank import mel_bank
from otic.core.seeds import generator
from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.models.htsat import HTSAT, HTSATConfig
from otic.models.text import TextConfig
from otic.models.two_tower import TwoTower, TwoTowerConfig

FFT, MELS, DIM = 1024, 16, 12
HTSAT_TINY = HTSATConfig(width=8, depths=(2, 2), heads=(2, 4), window=4, image=64, mels=MELS, classes=5)
GPT2 = TextConfig(vocab=257, positions=77, width=16, depth=2, heads=2, hidden=64, end=256)  # the bytes and an end
BERT = TextConfig(
    kind="bert", vocab=50, positions=20, width=16, depth=2, heads=2, hidden=48, eps=1e-12, pool="cls", tanh_gelu=False
)
ROBERTA = TextConfig(
    kind="roberta", vocab=50, positions=22, width=16, depth=2, heads=2, hidden=48, pool="pooler", pad=1, types=1,
    tanh_gelu=False,
)  # fmt: skip


def bank(rate=32000, high=14000.0, shape="slaney", mels=MELS, fft=FFT):
    return mel_bank(shape, rate=rate, fft=fft, mels=mels, low=50.0, high=high)


def gpt2_folder(folder):
    """A vocabulary of GPT-2's kind with the bytes alone; as there, "!" comes first."""
    folder.mkdir()
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def lively(model):
    """Every parameter and statistic drawn anew, so that none can be mistaken for another."""
    gen = generator("clap_files")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=gen)
            elif tensor.is_floating_point() and tensor.dim() and "log_scale" not in name:
                tensor.add_(torch.randn(tensor.shape, generator=gen) * 0.05)
    return model.eval()


def transform():
    """The convolutions that stand for the transform: a cosine and a sine for each bin, windowed."""
    angle = 2 * torch.pi * torch.outer(torch.arange(FFT // 2 + 1), torch.arange(FFT)) / FFT
    window = torch.hann_window(FFT)
    return (angle.cos() * window)[:, None], (-angle.sin() * window)[:, None]


def constants(matrix):
    real, imag = transform()
    return {
        "spectrogram_extractor.stft.conv_real.weight": real,
        "spectrogram_extractor.stft.conv_imag.weight": imag,
        "logmel_extractor.melW": matrix,
    }


def spelled(state, pairs):
    """Our names with parts replaced, in this order."""
    out = {}
    for name, tensor in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = tensor.clone()
    return out


def htsat(encoder, matrix):
    """As its authors write it, with what repeats the config."""
    out = spelled(encoder.state_dict(), [
        ("input_norm", "bn0"), ("patch.", "patch_embed."), ("stages.", "layers."), ("attn.rel_bias",
        "attn.relative_position_bias_table"), ("attn.out", "attn.proj"), ("merge", "downsample"),
        ("tagger", "tscam_conv"), ("fusion.proj", "patch_embed.mel_conv2d"),
        ("fusion.local", "patch_embed.fusion_model.local_att"), ("fusion.whole", "patch_embed.fusion_model.global_att"),
    ])  # fmt: skip
    for name, module in encoder.named_modules():
        if name.endswith("attn"):
            name = name.replace("stages", "layers")
            out[f"{name}.relative_position_index"] = module.places.clone()
            if module.mask is not None:
                out[f"{name}_mask"] = module.mask.clone()
    classes = len(out["tscam_conv.bias"])
    return out | constants(matrix) | {"head.weight": torch.zeros(classes, classes), "head.bias": torch.zeros(classes)}


def cnn14(encoder, matrix):
    pairs = [("input_norm", "bn0"), ("blocks.", "conv_block"), ("fc.", "fc1."), ("tagger", "fc_audioset")]
    return spelled(encoder.state_dict(), pairs) | constants(matrix)


def gpt2(tower):
    state = {
        name: tensor.mT.contiguous() if name.startswith("blocks") and tensor.dim() == 2 else tensor
        for name, tensor in tower.state_dict().items()
    }
    out = spelled(state, [
        ("tokens", "wte"), ("positions", "wpe"), ("blocks", "h"), ("attn.qkv", "attn.c_attn"), ("attn.out",
        "attn.c_proj"), ("mlp.0", "mlp.c_fc"), ("mlp.2", "mlp.c_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"),
    ])  # fmt: skip
    out = {name.replace("norm.", "ln_f."): tensor for name, tensor in out.items()}
    for i in range(tower.cfg.depth):
        out[f"h.{i}.attn.bias"] = torch.ones(1, 1, 77, 77).tril()
        out[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return out


def bert(tower):
    out = {"embeddings.position_ids": torch.arange(tower.cfg.positions)[None]}
    names = [
        ("embed_norm", "embeddings.LayerNorm"), ("tokens", "embeddings.word_embeddings"),
        ("positions", "embeddings.position_embeddings"), ("types", "embeddings.token_type_embeddings"),
        ("blocks", "encoder.layer"), ("attn.out", "attention.output.dense"), ("norm1", "attention.output.LayerNorm"),
        ("norm2", "output.LayerNorm"), ("mlp.0", "intermediate.dense"), ("mlp.2", "output.dense"),
        ("pooler", "pooler.dense"),
    ]  # fmt: skip
    for name, tensor in spelled(tower.state_dict(), names).items():
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[name.replace("attn.qkv", f"attention.self.{part}")] = rows.clone()
        else:
            out[name] = tensor
    if tower.pooler is None:  # BERT's files hold one that MS-CLAP never calls
        out |= {"pooler.dense.weight": torch.zeros(16, 16), "pooler.dense.bias": torch.zeros(16)}
    return out


def under(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def msclap_2023(matrix=None):
    """(the model, what its file holds)."""
    towers = lively(TwoTower(HTSAT(HTSAT_TINY), TwoTowerConfig(text=GPT2, dim=DIM)))
    return towers, {"model": {
        "logit_scale": towers.log_scale.detach()[0].clone(),
        **under("audio_encoder.base.htsat", htsat(towers.encoder, bank() if matrix is None else matrix)),
        **under("audio_encoder.projection", towers.audio_head.state_dict()),
        **under("caption_encoder.base", gpt2(towers.text)),
        **under("caption_encoder.projection", towers.text_head.state_dict()),
    }}  # fmt: skip


def msclap_2022():
    encoder = Cnn14(Cnn14Config(widths=(4, 6, 8), mels=MELS, classes=5))
    towers = lively(TwoTower(encoder, TwoTowerConfig(text=BERT, dim=DIM, pool="cls")))
    return towers, {"model": {
        "logit_scale": towers.log_scale.detach()[0].clone(),
        **under("audio_encoder.base", cnn14(encoder, bank(44100))),
        **under("audio_encoder.projection", towers.audio_head.state_dict()),
        **under("caption_encoder.base", bert(towers.text)),
        **under("caption_encoder.projection", towers.text_head.state_dict()),
    }}  # fmt: skip


def clapcap():
    towers, content = msclap_2023()
    audio = {n: t for n, t in content["model"].items() if n.startswith("audio_encoder.")}
    kept = {n.replace("audio_encoder.", "clap."): t for n, t in audio.items()}
    rest = {"clap_project.transformer.layers.0.linear.weight": torch.zeros(2, 2), "gpt.wte.weight": torch.zeros(3, 2)}
    return towers, {"model": kept | rest}


def laion(fused=False):
    """With the prefix of a parallel model, as the published ones have it."""
    from dataclasses import replace

    encoder = HTSAT(replace(HTSAT_TINY, fusion=fused, long="cut"))
    towers = lively(TwoTower(encoder, TwoTowerConfig(text=ROBERTA, dim=DIM, head="mlp", scales=2)))
    state = {
        "logit_scale_a": towers.log_scale.detach()[0].clone(),
        "logit_scale_t": towers.log_scale.detach()[1].clone(),
        **under("audio_branch", htsat(encoder, bank(48000))),
        **under("text_branch", bert(towers.text)),
    }
    for kind, head in (("audio", towers.audio_head), ("text", towers.text_head)):
        for ours, place in (("linear1", 0), ("linear2", 2)):
            state |= under(f"{kind}_projection.{place}", getattr(head, ours).state_dict())
        for place in (0, 3):
            state |= {f"{kind}_transform.sequential.{place}.weight": torch.eye(DIM)}
            state |= {f"{kind}_transform.sequential.{place}.bias": torch.zeros(DIM)}
    return towers, {"epoch": 1, "name": "x", "state_dict": under("module", state)}
