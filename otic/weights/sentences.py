"""Sentence encoders: a trained BERT or RoBERTa that turns a caption into one vector, from a local folder or the hub.

Reimers & Gurevych 2019 (arXiv 1908.10084). all-MiniLM-L6-v2 and kin: the mean over the real tokens' last states,
L2-normalised. M2D-CLAP (arXiv 2406.02032) trains against such vectors, computed once (`otic.weights.sentence_cache`).

A folder holds `config.json`, `model.safetensors` (or `pytorch_model.bin`), and `tokenizer.json` (or `vocab.txt`, or
`vocab.json` and `merges.txt`); beside them may lie `1_Pooling/config.json` and `sentence_bert_config.json`.

Axes: n texts, d width.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from otic.core.errors import ConfigError, WeightsError
from otic.core.files import sha256 as sha256_file
from otic.models.text import Bert, TextConfig, in_groups, text_tower
from otic.models.tokenizer import Tokenizer, Tokens
from otic.weights import hub
from otic.weights.pickles import load_pickle
from otic.weights.store import header
from otic.weights.upstream.clap_text import BERT
from otic.weights.upstream.table import fuse, must_fit, on_meta, rename, require

LENGTH = 256  # most tokens, where the model does not say (its tokenizer.json may say 128: that is not obeyed)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
BESIDE = ("tokenizer_config.json", "sentence_bert_config.json", "1_Pooling/config.json", "modules.json")
NEEDS = "config.json, model.safetensors and tokenizer.json (as hf.co/sentence-transformers/all-MiniLM-L6-v2 has them)"


class SentenceEncoder:
    """Texts in, unit vectors out.

    Attributes:
        tower: The transformer, frozen.
        tokenizer: Its vocabulary and rules.
        id: Changes whenever its vectors could: what a cache of them is filed under.
        width: Of a vector.
    """

    def __init__(self, tower: Bert, tokenizer: Tokenizer, id: str):
        self.tower, self.tokenizer, self.id, self.width = tower.eval().requires_grad_(False), tokenizer, id, tower.width

    @staticmethod
    def load(source: str | Path, length: int | None = None) -> SentenceEncoder:
        """Read a folder, or a repository of the hub (`owner/name`).

        Args:
            source: Folder or hub id.
            length: Most tokens of a text; None: what the model says, else 256.

        Raises:
            WeightsError: if files are missing, or hold another kind of model.
        """
        folder = find(source)
        said = settings(folder / "config.json")
        weights = next(folder / name for name in WEIGHTS if (folder / name).is_file())
        tower = _tower(weights, said, _pool(folder))
        kind = tower.cfg.kind
        assert kind != "decoder"
        room = tower.cfg.positions - (tower.cfg.pad + 1 if kind == "roberta" else 0)
        most = length or int(settings(folder / "sentence_bert_config.json").get("max_seq_length") or LENGTH)
        tokenizer = Tokenizer.from_folder(folder, kind, min(most, room))
        if tokenizer.size > tower.cfg.vocab:
            sizes = f"the tokenizer has {tokenizer.size} tokens, the weights {tower.cfg.vocab}"
            raise WeightsError(f"{folder}: {sizes}. Take both from one repository.")
        rules = json.dumps([tokenizer.to_dict(), tower.cfg.pool, tower.cfg.eps, tower.cfg.heads], sort_keys=True)
        return SentenceEncoder(tower, tokenizer, sha256((sha256_file(weights) + rules).encode()).hexdigest())

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], size: int = 128) -> Float[Tensor, "n d"]:
        """One unit vector for each text, float32 on the CPU.

        Args:
            texts: Sentences; a long one is cut (`tokenizer.truncated` counts these).
            size: Texts computed at once.
        """
        device = self.tower.tokens.weight.device

        def call(tokens: Tokens) -> Tensor:
            return F.normalize(self.tower(*tokens.to(device)).float(), dim=-1).cpu()

        return in_groups(call, self.tokenizer(texts), size)


def find(source: str | Path, needs: str = NEEDS) -> Path:
    """The folder that holds a model's files, fetched from the hub where it is none.

    Args:
        source: Folder or hub id.
        needs: The files of such a model, for messages.

    Raises:
        WeightsError: naming what is missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        if not hub.is_hub_id(str(source)):
            raise WeightsError(f"{source}: no such folder. Give one with {needs}, or a hub id, owner/name.")
        folder = fetch(str(source).removeprefix("hf-hub:"))
    missing = [
        " or ".join(names)
        for names in (("config.json",), WEIGHTS, VOCABULARY[:3])
        if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        raise WeightsError(f"{folder}: {', '.join(missing)} missing. A text tower needs {needs}.")
    return folder


def fetch(repository: str) -> Path:
    """The files of a repository, in the local cache.

    Raises:
        WeightsError: as `hub.fetch`, for those without which nothing goes.
    """
    folder = hub.fetch(repository, "config.json").parent
    _first(repository, WEIGHTS)
    fetch_vocabulary(repository)
    for name in BESIDE:
        with contextlib.suppress(WeightsError):
            hub.fetch(repository, name)
    return folder


def fetch_vocabulary(repository: str) -> Path:
    """The files of a repository's tokenizer, in the local cache.

    Raises:
        WeightsError: as `hub.fetch`.
    """
    name = _first(repository, VOCABULARY[:3])
    if name == "vocab.json":
        hub.fetch(repository, "merges.txt")
    return hub.fetch(repository, name).parent


def _first(repository: str, names: Sequence[str]) -> str:
    """Fetch the first of these files that there is."""
    errors = []
    for name in names:
        try:
            hub.fetch(repository, name)
            return name
        except WeightsError as error:
            errors.append(error)
    raise errors[0]


def settings(path: Path) -> dict[str, Any]:
    """A json file's content; nothing where there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: expected a JSON object. Download it again.")
    return values


def _pool(folder: Path) -> str:
    """`mean` or `cls`."""
    said = settings(folder / "1_Pooling" / "config.json")
    modes = {name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on}
    modes |= {said["pooling_mode"]} if isinstance(said.get("pooling_mode"), str) else set()  # newer files
    found = sorted(mode.removesuffix("_tokens").removesuffix("_token") for mode in modes) or ["mean"]
    if found not in (["mean"], ["cls"]):
        raise WeightsError(f"{folder}: pools by {' and '.join(found)}; only mean and cls are known here.")
    modules = folder / "modules.json"
    if modules.is_file() and ".Dense" in modules.read_text(encoding="utf-8", errors="replace"):
        raise WeightsError(f"{folder}: a Dense layer follows the pooling (modules.json), which is not known here.")
    return found[0]


def _tower(weights: Path, said: dict[str, Any], pool: str) -> Bert:
    """The transformer of a file, under its names in transformers (with `bert.` before them, or without)."""
    kind, folder = said.get("model_type"), weights.parent
    if kind not in ("bert", "roberta"):
        raise WeightsError(f'{folder}: model_type={kind!r} in config.json; only "bert" and "roberta" are known here.')
    if said.get("hidden_act", "gelu") != "gelu" or said.get("position_embedding_type", "absolute") != "absolute":
        raise WeightsError(f"{folder}: its activation or positions are not BERT's (config.json), and not known here.")
    state = _state(weights, kind)
    cfg = TextConfig(
        kind=kind,
        vocab=len(require(state, "tokens.weight", str(weights))),
        positions=len(require(state, "positions.weight", str(weights))),
        width=state["tokens.weight"].shape[1],
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        heads=int(said.get("num_attention_heads", 12)),
        hidden=len(require(state, "blocks.0.mlp.0.weight", str(weights))),
        eps=float(said.get("layer_norm_eps", 1e-12)),
        pool=pool,  # type: ignore[arg-type]
        dropout=0.0,
        pad=int(said.get("pad_token_id", 1 if kind == "roberta" else 0)),
        types=len(require(state, "types.weight", str(weights))),
        tanh_gelu=False,
    )
    try:
        tower = on_meta(text_tower, cfg)
    except ConfigError as error:
        raise WeightsError(f"{folder}: config.json does not fit the weights: {error}") from error
    must_fit(tower, state, str(weights))
    tower.load_state_dict(state, assign=True)
    assert isinstance(tower, Bert)
    return tower


def _state(weights: Path, kind: str) -> dict[str, Tensor]:
    """Tensors under our names; poolers and the heads of pre-training are left out."""
    where = str(weights)
    if weights.suffix == ".safetensors":
        header(weights)  # says what is wrong with it
        raw = load_file(weights)
    else:
        raw = load_pickle(weights)
    bare = {name.removeprefix(f"{kind}."): tensor for name, tensor in raw.items()}
    kept = {name: t for name, t in bare.items() if not name.startswith(("pooler.", "cls.", "lm_head."))}
    named = fuse(rename(kept, BERT, where), where)
    return {name: tensor for name, tensor in named.items() if not name.startswith("unused.")}
