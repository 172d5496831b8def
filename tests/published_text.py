"""Small text towers in the layout of published ones, for tests."""

import json

from safetensors.torch import save_file

from otic.core.seeds import generator
from otic.models.text import TextConfig, text_tower
from otic.models.tokenizer_files import BYTES

GPT2 = TextConfig(vocab=261, positions=200, width=24, depth=2, heads=3, hidden=96, end=260)
BERT = TextConfig(
    kind="bert", vocab=13, positions=40, width=24, depth=2, heads=3, hidden=48, eps=1e-12, pool="mean", tanh_gelu=False
)
GPT2_NAMES = {
    "tokens": "wte", "positions": "wpe", "norm1": "ln_1", "norm2": "ln_2", "norm": "ln_f", "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj", "blocks": "h",
}  # fmt: skip
BERT_NAMES = {
    "tokens": "embeddings.word_embeddings", "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings", "embed_norm": "embeddings.LayerNorm", "attn.qkv": "attention.self.qkv",
    "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm", "attn.out": "attention.output.dense",
    "mlp.0": "intermediate.dense", "mlp.2": "output.dense", "blocks": "encoder.layer", "pooler": "pooler.dense",
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "tone", "noise", "then", "and", "rises", "falls", "quiet", "loud"]


def named(state, names):
    """Our names into published ones."""
    out = {}
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        head = f"{names['blocks']}.{path[1]}." if path[0] == "blocks" else ""
        out[f"{head}{names['.'.join(path[2:] if head else path)]}.{leaf}"] = tensor
    return out


def write_gpt2(folder, prefix="transformer.", cfg=GPT2):
    """GPT-2 with bytes for its vocabulary; the tower that was written."""
    folder.mkdir(parents=True, exist_ok=True)
    tower = text_tower(cfg, generator("gpt2"))
    turned = ("attn.qkv.weight", "attn.out.weight", "mlp.0.weight", "mlp.2.weight")  # stored transposed
    state = {n: t.T if n.endswith(turned) else t for n, t in tower.state_dict().items()}
    tensors = {prefix + n: t.clone().contiguous() for n, t in named(state, GPT2_NAMES).items()}
    tensors[f"{prefix}h.0.attn.bias"] = tensors[f"{prefix}wte.weight"].new_ones(1, 1, 4, 4)
    tensors["lm_head.weight"] = tower.tokens.weight.detach().clone()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": cfg.heads, "vocab_size": 50257}))
    words = ["!", *(b for b in BYTES if b != "!"), "to", "ne", "tone"]
    vocab = {word: i for i, word in enumerate(words)}
    vocab["<|endoftext|>"] = cfg.vocab - 1
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\nt o\nn e\nto ne\n")
    return tower.eval()


def write_bert(folder, cfg=BERT):
    """A sentence encoder; the tower that was written."""
    folder.mkdir(parents=True, exist_ok=True)
    tower = text_tower(cfg, generator("bert"))
    tensors = {}
    for name, tensor in named(tower.state_dict(), BERT_NAMES).items():
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True) if ".qkv." in name else [("qkv", tensor)]
        tensors |= {name.replace("qkv", part): rows.clone().contiguous() for part, rows in parts}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_attention_heads": cfg.heads}))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return tower.eval()
