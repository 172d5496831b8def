"""A published text tower for a run of ours: its weights, shape and tokenizer from a local folder, or from the hub.

gpt2            reads (its end token's state, or the mean) and writes
bert, roberta   read: as sentence encoders (the mean, of length one: see `otic.weights.sentences`), or by BERT's first
                token and RoBERTa's pooler, as MS-CLAP 2022 and LAION-CLAP have it

A folder holds `config.json`, `model.safetensors` (or `pytorch_model.bin`), and `tokenizer.json` (or `vocab.json` and
`merges.txt`, or `vocab.txt`).

Axes: n texts, d width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from otic.core.errors import WeightsError
from otic.core.files import sha256 as sha256_file
from otic.models.text import Bert, Decoder, TextConfig, in_groups, text_tower
from otic.models.tokenizer import Kind, Tokenizer, Tokens
from otic.weights import hub, sentences
from otic.weights.pickles import load_pickle
from otic.weights.sentences import SentenceEncoder
from otic.weights.store import header
from otic.weights.upstream import clap_text
from otic.weights.upstream.clap_text import BERT, GPT2
from otic.weights.upstream.table import fuse, on_meta, rename

KINDS: dict[str, Kind] = {"decoder": "gpt2", "bert": "bert", "roberta": "roberta"}  # of a tower: of its tokenizer
EPS = {"bert": 1e-12, "roberta": 1e-5}
NEEDS = "config.json, model.safetensors and tokenizer.json (as hf.co/openai-community/gpt2 has them)"


class Language:
    """A text tower and what belongs to it.

    Attributes:
        tower: `Decoder` or `Bert`.
        tokenizer: Its own.
        unit: Its vectors are brought to length one.
        width: Of a vector.
    """

    def __init__(self, tower: Decoder | Bert, tokenizer: Tokenizer, *, unit: bool, id: str = "", file: str | Path = ""):
        self.tower, self.tokenizer, self.unit, self.width = tower.eval(), tokenizer, unit, tower.width
        self._id, self._file = id, Path(file)

    @cached_property
    def id(self) -> str:
        """Changes whenever its vectors could: what a cache of them is filed under."""
        cfg = self.tower.cfg
        rules = json.dumps([self.tokenizer.to_dict(), cfg.kind, cfg.pool, cfg.eps, cfg.heads], sort_keys=True)
        return self._id or sha256((sha256_file(self._file) + rules).encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], size: int = 128) -> Float[Tensor, "n d"]:
        """What enters a head for each text, float32 on the CPU; `size` texts are computed at once."""
        device = self.tower.tokens.weight.device

        def call(tokens: Tokens) -> Tensor:
            said = self.tower(*tokens.to(device)).float()
            return (F.normalize(said, dim=-1) if self.unit else said).cpu()

        return in_groups(call, self.tokenizer(texts), size)


def load(source: str | Path, text: TextConfig, tokenizer: str | Path = "", length: int = 77) -> Language:
    """The tower of a folder, or of a repository of the hub (`owner/name`).

    Args:
        source: Folder or hub id.
        text: Says its dropout, and how it is pooled: GPT-2 by `end` or `mean`; BERT and RoBERTa by their first token
            where this says `cls` or `pooler`, else as sentence encoders.
        tokenizer: Another folder or hub id with its vocabulary; "": that of `source`.
        length: Most tokens of a text (of a sentence encoder: as it says itself).

    Raises:
        WeightsError: if files are missing, or hold another kind of model.
    """
    folder = _folder(source)
    said = sentences.settings(folder / "config.json")
    kind, plain = said.get("model_type"), text.pool in ("cls", "pooler")
    if kind not in ("gpt2", "bert", "roberta"):
        raise WeightsError(f"{folder}: model_type={kind!r} in config.json; gpt2, bert and roberta are known here.")
    if kind != "gpt2" and not plain:
        found = SentenceEncoder.load(folder)
        found.tower.cfg = replace(found.tower.cfg, dropout=text.dropout)
        return Language(found.tower, found.tokenizer, unit=True, id=found.id)
    file = next(folder / name for name in sentences.WEIGHTS if (folder / name).is_file())
    cfg, state = _gpt2(file, said) if kind == "gpt2" else _bert(file, said, "bert" if kind == "bert" else "roberta")
    pool = text.pool if kind == "gpt2" and text.pool in ("end", "mean") else cfg.pool
    tower = on_meta(text_tower, replace(cfg, pool=pool, dropout=text.dropout))
    tower.load_state_dict(state, assign=True)
    assert isinstance(tower, Decoder | Bert)
    own = load_tokenizer(tokenizer or folder, cfg.kind, length)
    if own.size > cfg.vocab:
        sizes = f"the tokenizer has {own.size} tokens, the weights {cfg.vocab}"
        raise WeightsError(f"{folder}: {sizes}. Take both from one repository.")
    return Language(tower, own, unit=False, file=file)


def load_tokenizer(source: str | Path, kind: str, length: int = 77) -> Tokenizer:
    """The tokenizer alone of a folder or of a repository of the hub.

    Args:
        source: Folder or hub id.
        kind: Of the text tower (`decoder`, `bert`, `roberta`).
        length: Most tokens of a text.

    Raises:
        WeightsError: if its files are missing, or of another kind.
    """
    if not Path(source).is_dir() and hub.is_hub_id(str(source)):
        source = sentences.fetch_vocabulary(str(source).removeprefix("hf-hub:"))
    return Tokenizer.from_folder(source, KINDS[kind], length)


def _folder(source: str | Path) -> Path:
    """Where its files lie; they are fetched from the hub if need be."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return sentences.find(source, NEEDS)
    wanted = (("config.json",), sentences.WEIGHTS)
    missing = [" or ".join(names) for names in wanted if not any((folder / name).is_file() for name in names)]
    if missing:
        raise WeightsError(f"{folder}: {', '.join(missing)} missing. A text tower needs {NEEDS}.")
    return folder


def _gpt2(file: Path, said: dict[str, Any]) -> tuple[TextConfig, dict[str, Tensor]]:
    changes = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention")
    odd = [name for name in changes if said.get(name)]
    if odd or said.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        raise WeightsError(f"{file.parent}: its config.json changes GPT-2 ({', '.join(odd) or 'activation_function'}).")
    raw = {name.removeprefix("transformer."): tensor for name, tensor in _read(file).items()}
    raw.pop("lm_head.weight", None)  # the token table again
    return clap_text.gpt2(rename(raw, GPT2, str(file)), said, str(file))


def _bert(file: Path, said: dict[str, Any], kind: Literal["bert", "roberta"]) -> tuple[TextConfig, dict[str, Tensor]]:
    bare = {name.removeprefix(f"{kind}."): tensor for name, tensor in _read(file).items()}
    kept = {name: tensor for name, tensor in bare.items() if not name.startswith(("cls.", "lm_head."))}
    named = fuse(rename(kept, BERT, str(file)), str(file))
    return clap_text.bert(named, said, str(file), kind, EPS[kind])


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        return load_pickle(file)
    header(file)  # says what is wrong with it
    return load_file(file)
