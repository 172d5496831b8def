"""LAION-CLAP's own checkpoints (LAION-AI/CLAP @ 1fd4c37, arXiv 2211.06687).

`{epoch, name, state_dict}` or the bare state dict, perhaps with `module.` before each name: `audio_branch.*` (HTSAT),
`text_branch.*` (RoBERTa), `{audio,text}_projection.*`, two log-scales, and `{audio,text}_transform.*`, which serve one
training loss alone and are kept as extra tensors (`audio_mlp.*`, `text_mlp.*`, for `MLPHead`).

Files with feature fusion saw mel bands of another kind than those without: HTK, unscaled, computed by the loader. The
matrix that lies in them was not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otic.audio.frontend import FrontendConfig, htsat
from otic.models.two_tower import TwoTowerConfig
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded
from otic.weights.upstream import clap, clap_text
from otic.weights.upstream import htsat as tower
from otic.weights.upstream.clap import Converted
from otic.weights.upstream.filterbank import recognise
from otic.weights.upstream.table import below, fuse, rename, require

TABLE = (
    *tower.under(r"audio_branch\.", "encoder.", tower.AUTHORS),
    *tower.under(r"text_branch\.", "text.", clap_text.BERT),
    (r"(audio|text)_projection\.0\.(weight|bias)", r"\1_head.linear1.\2"),
    (r"(audio|text)_projection\.2\.(weight|bias)", r"\1_head.linear2.\2"),
    (r"(audio|text)_transform\.sequential\.0\.(weight|bias)", r"\1_mlp.linear1.\2"),
    (r"(audio|text)_transform\.sequential\.3\.(weight|bias)", r"\1_mlp.linear2.\2"),
    (r"logit_scale_([at])", r"scale.\1"),
)
MARKS = ("audio_branch.bn0.weight", "text_projection.0.weight")
INFERENCE = {"window": 10.0, "short": "repeatpad", "pool": "mean"}


def matches(content: Mapping[str, Any]) -> bool:
    """Whether this is such a checkpoint."""
    names = clap.state_of(content, "state_dict")
    return all(mark in names for mark in MARKS)


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """Both towers, without a tokenizer.

    Raises:
        WeightsError: as `convert`.
    """
    found = convert(content, settings, str(path))
    kind = "fused" if found.encoder.fusion else "unfused"
    said = clap.describe(
        found,
        path,
        entry,
        system="LAION-CLAP",
        layout=f"LAION-CLAP, {kind}",
        tokenizer="roberta",
        inference=INFERENCE,
    )
    return clap.build(found, said)


def convert(content: Mapping[str, Any], settings: Mapping[str, Any] = {}, where: str = "LAION-CLAP") -> Converted:
    """Convert a checkpoint with or without feature fusion.

    Args:
        content: `{state_dict: ...}`, or the state dict.
        settings: What shapes do not tell, where it is not as published: `encoder`, `frontend` (`sample_rate`,
            `hop_size`, `fmin`, `fmax`) and `text` (`num_heads`, `layer_norm_eps`, ...).
        where: The file, for messages.

    Raises:
        WeightsError: if tensors do not map, are missing, or have odd shapes; the first is named.
    """
    names = clap.state_of(content, "state_dict")
    tensors = fuse(rename(names, TABLE, where), where)
    audio = below(tensors, "encoder.")
    bank = require(audio, "fixed.bank", where)
    encoder, state = tower.encoder(audio, settings.get("encoder", {}), where, long="cut")
    text, words = clap_text.bert(below(tensors, "text."), settings.get("text", {}), where, "roberta", 1e-5)
    towers, towers_state = joint(text, words, tensors, where)
    found = Converted(
        encoder=encoder,
        state=state,
        frontend=_frontend(audio, settings.get("frontend", {}), where, fusion=encoder.fusion),
        bank=None if encoder.fusion else bank,
        towers=towers,
        towers_state=towers_state,
        extra={n: t for n, t in tensors.items() if n.startswith(("audio_mlp.", "text_mlp."))},
        dropped=clap.aside(names, TABLE, kept=None if encoder.fusion else bank),
    )
    clap.check_towers(found, where)
    return found


def joint(
    text: Any, words: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str
) -> tuple[TwoTowerConfig, dict[str, Tensor]]:
    """The joint space of both LAION layouts: its config, and its tensors without the audio encoder's.

    Args:
        text: Config of the text tower.
        words: Its tensors.
        tensors: All, under our names.
        where: The file, for messages.
    """
    scales = torch.stack([require(tensors, f"scale.{kind}", where).reshape(()) for kind in "at"])
    dim = len(require(tensors, "audio_head.linear1.weight", where))
    cfg = TwoTowerConfig(text=text, dim=dim, head="mlp", scales=2, dropout=0.0)
    heads = {n: t for n, t in tensors.items() if n.startswith(("audio_head.", "text_head."))}
    return cfg, {"log_scale": scales, **heads, **{f"text.{n}": t for n, t in words.items()}}


def _frontend(audio: Mapping[str, Tensor], said: Mapping[str, Any], where: str, *, fusion: bool) -> FrontendConfig:
    """That of the stored transform and mel matrix; with fusion, that of LAION's loader."""
    fft, bank = tower.transform(audio, where), require(audio, "fixed.bank", where)
    rate = int(said.get("sample_rate", 48000))
    mel: dict[str, Any] = {"mel_rate": None, **tower.edges(said, rate)}
    mel |= {"mel": "htk"} if fusion else recognise(bank, rate).mended
    hop = int(said.get("hop_size", 480 * fft // 1024))
    return htsat(sample_rate=rate, fft=fft, window=fft, hop=hop, mels=bank.shape[1], quantise=True, **mel)
