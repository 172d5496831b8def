"""The text towers against the published code: GPT-2 (MS-CLAP 2023), BERT (MS-CLAP 2022), RoBERTa (LAION-CLAP).

Sizes come from the tensors, settings from the json files beside them. The set does not say how many heads the BERT
tower has: one number that divides its width must give the stored values.
"""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from closeness import close
from safetensors.torch import load_file

from otic.models.text import TextConfig, text_tower
from otic.models.text_block import Past

EPS = {"bert": 1e-12, "roberta": 1e-5}
GPT2 = {
    "wte": "tokens", "wpe": "positions", "h": "blocks", "ln_1": "norm1", "ln_2": "norm2", "c_attn": "qkv",
    "attn.c_proj": "attn.out", "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2", "ln_f": "norm",
}  # fmt: skip
BERT = {
    "embeddings.word_embeddings": "tokens", "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types", "embeddings.LayerNorm": "embed_norm", "encoder.layer": "blocks",
    "attention.output.dense": "attn.out", "attention.output.LayerNorm": "norm1", "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2", "output.LayerNorm": "norm2", "pooler.dense": "pooler",
}  # fmt: skip


def under(tensors, prefix):
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def renamed(name, table):
    """Longer names first; whole parts of a name only."""
    for old in sorted(table, key=len, reverse=True):
        name = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", table[old], name)
    return name


def from_gpt2(tensors):
    """Its linear layers are stored [in, out]; causal masks in files of older versions are dropped."""
    kept = {n: t for n, t in tensors.items() if not re.search(r"\.attn\.(masked_)?bias$", n)}
    return {renamed(n, GPT2): t.T if n.startswith("h.") and t.ndim == 2 else t for n, t in kept.items()}


def from_bert(tensors):
    state = {}
    for name, t in tensors.items():
        if not name.endswith(("position_ids", "token_type_ids", ".query.weight", ".key.weight", ".value.weight",
                              ".query.bias", ".key.bias", ".value.bias")):  # fmt: skip
            state[renamed(name, BERT)] = t
        elif m := re.match(r"encoder\.layer\.(\d+)\.attention\.self\.query\.(weight|bias)", name):
            parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
            state[f"blocks.{m[1]}.attn.qkv.{m[2]}"] = torch.cat(parts)
    return state


def build(state, heads, **settings):
    vocab, width = state["tokens.weight"].shape
    depth = 1 + max(int(m[1]) for n in state if (m := re.match(r"blocks\.(\d+)\.", n)))
    sizes = {
        "vocab": vocab,
        "width": width,
        "depth": depth,
        "heads": heads,
        "hidden": len(state["blocks.0.mlp.0.bias"]),
    }
    types = {"types": len(state["types.weight"])} if "types.weight" in state else {}
    tower = text_tower(TextConfig(positions=len(state["positions.weight"]), **sizes, **types, **settings)).eval()
    if settings["pool"] != "pooler":
        state = {n: t for n, t in state.items() if not n.startswith("pooler.")}
    tower.load_state_dict(state)
    return tower


def residual(x, head):
    """MS-CLAP's projection."""
    y = x @ head["linear1.weight"].T
    return F.layer_norm(
        y + F.gelu(y) @ head["linear2.weight"].T, y.shape[-1:], head["layer_norm.weight"], head["layer_norm.bias"]
    )


def found(folder, pattern):
    paths = sorted(folder.glob(pattern))
    assert paths, f"{folder} lacks {pattern}"
    return paths


def gpt2_of(tensors, cfg, prefix, pool):
    heads = cfg.get("n_head", cfg.get("num_heads"))
    eps = float(cfg.get("layer_norm_epsilon", 1e-5))
    ids = {"end": cfg["eos_id"], "pad": cfg.get("pad_id", 0)}
    return build(from_gpt2(under(tensors, prefix)), heads, eps=eps, pool=pool, **ids)


# --- GPT-2


@pytest.fixture(scope="module")
def gpt2(golden):
    cases = []
    for path in found(golden("clap"), "gpt2_text*.safetensors"):
        cfg = json.loads(path.with_name(path.stem + "_config.json").read_text())
        cases.append((path.stem, load_file(path), cfg))
    return cases


@torch.no_grad()
def test_gpt2_states_and_pooling(gpt2):
    for name, stored, cfg in gpt2:
        tower, ids, mask = (
            gpt2_of(stored, cfg, "w.base.", "count_nonzero"),
            stored["input_ids"],
            stored["attention_mask"] > 0,
        )
        close(f"{name} hidden_states", tower.states(ids, mask), stored["hidden_states"], 2e-5)
        assert torch.equal(tower.pooled(ids, mask), stored["pooled_index"]), name
        head = under(stored, "w.projection.")
        close(f"{name} text_embed", residual(tower(ids, mask), head), stored["text_embed"], 2e-5)
        bare = tower.states(ids)[torch.arange(len(ids)), tower.pooled(ids, mask)]
        close(f"{name} without mask", residual(bare, head), stored["text_embed_without_attention_mask"], 2e-5)


@torch.no_grad()
def test_gpt2_reads_the_first_end_token(gpt2):
    """The same states, one place later where the text holds id 0 (upstream counts it as padding)."""
    for name, stored, cfg in gpt2:
        tower, ids, mask = gpt2_of(stored, cfg, "w.base.", "end"), stored["input_ids"], stored["attention_mask"] > 0
        ends = [row.index(cfg["eos_id"]) if cfg["eos_id"] in row else int(m.sum()) - 1
                for row, m in zip(ids.tolist(), mask, strict=True)]  # fmt: skip
        assert tower.pooled(ids, mask).tolist() == ends, name
        want = stored["hidden_states"][torch.arange(len(ids)), torch.tensor(ends)]
        close(f"{name} at the end token", tower(ids, mask), want, 2e-5)
        zeros = ((ids == tower.cfg.pad) & mask).sum(1)
        later = torch.tensor(ends) - stored["pooled_index"]
        assert ((later > 0) == (zeros > 0))[torch.tensor(ends) == mask.sum(1) - 1].all(), name


@torch.no_grad()
def test_gpt2_token_by_token(gpt2):
    """With a cache, in one, two and three steps, each gives the states of a whole pass."""
    for name, stored, cfg in gpt2:
        tower, ids, mask = gpt2_of(stored, cfg, "w.base.", "end"), stored["input_ids"], stored["attention_mask"] > 0
        for cuts in ((1,) * ids.shape[1], (ids.shape[1] // 2, ids.shape[1] - ids.shape[1] // 2)):
            past, parts = Past(), []
            for part, m in zip(ids.split(cuts, 1), mask.split(cuts, 1), strict=True):
                parts.append(tower.run(tower.embed(part), m, past=past))
            close(f"{name} in {len(cuts)} steps", torch.cat(parts, 1), stored["hidden_states"], 2e-5)


@torch.no_grad()
def test_a_whole_msclap_file(golden):
    folder = golden("clap")
    for path in found(folder, "msclap_*.pth"):
        said = json.loads((folder / f"{path.stem}_config.json").read_text())
        if "gpt2" not in said:
            continue  # the 2022 layout
        stored = load_file(folder / f"{path.stem}_io.safetensors")
        tensors = torch.load(path, weights_only=True)["model"]
        tower = gpt2_of(tensors, said["gpt2"] | {"eos_id": said["eos_id"]}, "caption_encoder.base.", "count_nonzero")
        got = residual(
            tower(stored["input_ids"], stored["attention_mask"] > 0), under(tensors, "caption_encoder.projection.")
        )
        close(f"{path.name} text", got, stored["text_embed_unnormalised"], 2e-4)


# --- BERT, RoBERTa


@torch.no_grad()
def test_bert(golden):
    for path in found(golden("clap"), "bert_text*.safetensors"):
        stored = load_file(path)
        assert not stored["token_type_ids"].any(), f"{path.name}: only the first token type is made"
        state, ids, mask = from_bert(under(stored, "w.base.")), stored["input_ids"], stored["attention_mask"] > 0
        width = state["tokens.weight"].shape[1]
        towers = [
            build(state, heads, kind="bert", pool="cls", tanh_gelu=False, eps=EPS["bert"])
            for heads in range(1, width + 1)
            if width % heads == 0
        ]
        tower = min(towers, key=lambda t: (t.states(ids, mask) - stored["last_hidden_state"]).abs().max())
        name = f"{path.stem}, {tower.cfg.heads} heads,"
        close(f"{name} last_hidden_state", tower.states(ids, mask), stored["last_hidden_state"], 2e-5)
        close(
            f"{name} text_embed", residual(tower(ids, mask), under(stored, "w.projection.")), stored["text_embed"], 2e-5
        )


def roberta_of(tensors, cfg):
    eps, pad = float(cfg.get("layer_norm_eps", EPS["roberta"])), cfg.get("pad_token_id", 1)
    heads = cfg.get("num_attention_heads") or cfg["num_heads"]
    return build(from_bert(tensors), heads, kind="roberta", pool="pooler", tanh_gelu=False, eps=eps, pad=pad)


@torch.no_grad()
def test_laion_files(golden):
    folder = golden("clap")
    for path in found(folder, "laion_*.pt"):
        own = folder / f"{path.stem}_config.json"
        said = json.loads((own if own.exists() else folder / "laion_tiny_config.json").read_text())["text"]
        stored = load_file(folder / f"{path.stem}_io.safetensors")
        raw = torch.load(path, weights_only=True)["state_dict"]
        tensors = {n.removeprefix("module."): t for n, t in raw.items()}
        x = roberta_of(under(tensors, "text_branch."), said)(stored["input_ids"], stored["attention_mask"] > 0)
        head = under(tensors, "text_projection.")
        x = F.relu(F.linear(x, head["0.weight"], head["0.bias"]))
        x = F.normalize(F.linear(x, head["2.weight"], head["2.bias"]), dim=-1)
        close(f"{path.name} text_embed", x, stored["text_embed"], 5e-5)


@torch.no_grad()
def test_transformers_files(golden):
    folder = golden("clap")
    for path in found(folder, "hf_*/model.safetensors"):
        said = json.loads((path.parent / "config.json").read_text())["text_config"]
        stored = load_file(folder / f"{path.parent.name}_io.safetensors")
        tower = roberta_of(under(load_file(path), "text_model."), said)
        ids, mask = stored["input_ids"], stored["attention_mask"] > 0
        close(f"{path.parent.name} states", tower.states(ids, mask), stored["text_last_hidden_state"], 2e-5)
        close(f"{path.parent.name} pooler", tower(ids, mask), stored["text_pooler"], 2e-5)
