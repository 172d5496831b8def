"""The published files of MS-CLAP (microsoft/CLAP @ e8a6467, arXiv 2309.05767 and 2206.04769).

2023     {model}: `audio_encoder.base.htsat.*`, `caption_encoder.base.*` (GPT-2), a `projection` for each, `logit_scale`
2022     {model}: the same with `audio_encoder.base.*` (Cnn14) and BERT
clapcap  {model}: `clap.base.htsat.*`, `clap.projection.*`; its captioner (`clap_project.*`, `gpt.*`) is left

The stored mel matrix is what the model was trained with, whatever the paper says, and is kept (see `filterbank`).
Upstream loads without checking names; here every tensor has a place or is known to be unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from otic.audio.frontend import FrontendConfig, htsat
from otic.models.cnn14 import Cnn14Config
from otic.models.htsat import HTSATConfig
from otic.models.two_tower import TwoTowerConfig
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded
from otic.weights.upstream import clap, clap_text, cnn14
from otic.weights.upstream import htsat as tower
from otic.weights.upstream.clap import Converted
from otic.weights.upstream.filterbank import recognise
from otic.weights.upstream.table import below, fuse, rename, require

_HEAD = r"projection\.(linear1\.weight|linear2\.weight|layer_norm\.weight|layer_norm\.bias)"
_HEADS = (
    (r"audio_encoder\." + _HEAD, r"audio_head.\1"),
    (r"clap\." + _HEAD, r"audio_head.\1"),
    (r"caption_encoder\." + _HEAD, r"text_head.\1"),
    ("logit_scale", "log_scale"),
)
_CAPTIONER = ((r"(clap_project|gpt)\.(.+)", r"unused.\1.\2"),)
TABLE_2023 = (
    *tower.under(r"(?:audio_encoder|clap)\.base\.htsat\.", "encoder.", tower.AUTHORS),
    *tower.under(r"caption_encoder\.base\.", "text.", clap_text.GPT2),
    *_HEADS,
    *_CAPTIONER,
)
TABLE_2022 = (
    *tower.under(r"audio_encoder\.base\.", "encoder.", cnn14.AUTHORS),
    *tower.under(r"caption_encoder\.base\.", "text.", clap_text.BERT),
    *_HEADS,
)
MARKS = {  # a name that tells the file -> its table, seconds of a clip
    "audio_encoder.base.htsat.bn0.weight": (TABLE_2023, 7.0),
    "clap.base.htsat.bn0.weight": (TABLE_2023, 7.0),
    "audio_encoder.base.conv_block1.conv1.weight": (TABLE_2022, 5.0),
}


def matches(content: Mapping[str, Any]) -> bool:
    """Whether this is one of these files, or the tensors of one."""
    names = clap.state_of(content, "model")
    return any(mark in names for mark in MARKS)


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """Both towers, or the audio encoder of a captioner; without a tokenizer.

    Raises:
        WeightsError: as `convert`.
    """
    found = convert(content, settings, str(path))
    htsat_based = isinstance(found.encoder, HTSATConfig)
    name = "MS-CLAP 2023" if htsat_based else "MS-CLAP 2022"
    seconds = 7.0 if htsat_based else 5.0
    said = clap.describe(
        found,
        path,
        entry,
        system=name if found.towers else f"{name}, captioner",
        layout="MS-CLAP",
        tokenizer="gpt2" if htsat_based else "bert",
        inference={"window": seconds, "short": "repeat", "pool": "mean" if htsat_based else "cls"},
    )
    return clap.build(found, said)


def convert(content: Mapping[str, Any], settings: Mapping[str, Any] = {}, where: str = "MS-CLAP") -> Converted:
    """Convert a file of any of the three kinds.

    Args:
        content: `{model: state dict}`, or the state dict.
        settings: What shapes do not tell, where it is not as published, in upstream's words: `encoder`, `frontend`
            (`sample_rate`, `hop_size`, `fmin`, `fmax`), `gpt2` or `bert` (`n_head`, `pool`, ...), `eos_id`.
        where: The file, for messages.

    Raises:
        WeightsError: if tensors do not map, are missing, or have odd shapes; the first is named.
    """
    names = clap.state_of(content, "model")
    table = next((table for mark, (table, _) in MARKS.items() if mark in names), TABLE_2023)
    tensors = fuse(rename(names, table, where), where)
    audio, text = below(tensors, "encoder."), below(tensors, "text.")
    bank = require(audio, "fixed.bank", where)
    encoder: HTSATConfig | Cnn14Config
    if table is TABLE_2023:
        encoder, state = tower.encoder(audio, settings.get("encoder", {}), where, long="windows")
    else:
        encoder, state = cnn14.encoder(audio, where)
    towers, more = None, below(tensors, "audio_head.")
    if text:
        towers, more = _towers(tensors, text, settings, where, gpt=table is TABLE_2023)
    found = Converted(
        encoder=encoder,
        state=state,
        frontend=_frontend(audio, settings.get("frontend", {}), where),
        bank=bank,
        towers=towers,
        towers_state=more if towers else {},
        extra={} if towers else {f"audio_head.{n}": t for n, t in more.items()},
        dropped=clap.aside(names, table, kept=bank),
    )
    clap.check_towers(found, where)
    return found


def _towers(
    tensors: Mapping[str, Tensor], text: Mapping[str, Tensor], settings: Mapping[str, Any], where: str, *, gpt: bool
) -> tuple[TwoTowerConfig, dict[str, Tensor]]:
    """The joint space: its config, and its tensors without the audio encoder's."""
    if gpt:
        said = {"eos_id": settings.get("eos_id"), **settings.get("gpt2", {})}
        words, state = clap_text.gpt2(text, said, where)
    else:
        words, state = clap_text.bert(text, settings.get("bert", {}), where, "bert", 1e-12)
    scale = require(tensors, "log_scale", where).reshape(1)
    cfg = TwoTowerConfig(
        text=words,
        dim=len(require(tensors, "audio_head.linear1.weight", where)),
        head="residual",
        max_scale=max(100.0, float(scale.exp())),  # upstream clamps while training at most
        pool="mean" if gpt else "cls",
    )
    heads = {n: t for n, t in tensors.items() if n.startswith(("audio_head.", "text_head."))}
    return cfg, {"log_scale": scale, **heads, **{f"text.{n}": t for n, t in state.items()}}


def _frontend(audio: Mapping[str, Tensor], said: Mapping[str, Any], where: str) -> FrontendConfig:
    """That of the stored transform and mel matrix."""
    fft, bank = tower.transform(audio, where), audio["fixed.bank"]
    rate = int(said.get("sample_rate", 44100))
    return htsat(
        sample_rate=rate,
        fft=fft,
        window=fft,
        hop=int(said.get("hop_size", 320 * fft // 1024)),
        mels=bank.shape[1],
        **{"mel_rate": None, **tower.edges(said, rate), **recognise(bank, rate).mended},
    )
