"""CLAP as the transformers library stores it (`ClapModel`, transformers 5.23.0): LAION's weights under other names.

`model.safetensors` (or `pytorch_model.bin`) holds the same towers, without mel matrix, tagger and loss heads; the text
tower's heads and epsilons are in `config.json`, the front-end in `preprocessor_config.json`, whose edges of the mel
bands differ between files and are obeyed. Without it: LAION's own settings, 50-14000 Hz.

Its feature extractor flags one clip of each batch at random as longer than the window even at inference
(LAION-AI/CLAP issue 90); we flag those which are longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otic.audio.frontend import FrontendConfig, htsat
from otic.core.errors import WeightsError
from otic.weights.catalogue import Entry
from otic.weights.store import Loaded
from otic.weights.upstream import clap, clap_text
from otic.weights.upstream import htsat as tower
from otic.weights.upstream.clap import Converted
from otic.weights.upstream.laion import INFERENCE, joint
from otic.weights.upstream.table import below, fuse, rename

TABLE = (
    *tower.under(r"audio_model\.audio_encoder\.", "encoder.", tower.TRANSFORMERS),
    *tower.under(r"text_model\.", "text.", clap_text.BERT),
    (r"(audio|text)_projection\.(linear1|linear2)\.(weight|bias)", r"\1_head.\2.\3"),
    (r"logit_scale_([at])", r"scale.\1"),
)
ACTIVATIONS = {"hidden_act": "gelu", "projection_hidden_act": "relu"}  # of each tower, of each head
MARKS = ("audio_model.audio_encoder.batch_norm.weight", "text_projection.linear1.weight")


def matches(content: Mapping[str, Any]) -> bool:
    """Whether this is such a file."""
    return all(mark in content for mark in MARKS)


def loaded(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path, entry: Entry | None = None) -> Loaded:
    """Both towers, without a tokenizer.

    Args:
        content: Tensors.
        settings: `config.json`, and under `preprocessor` the file of that name.
        path: The file, for messages and for a name.
        entry: What the catalogue says of it.

    Raises:
        WeightsError: as `convert`.
    """
    found = convert(content, settings, str(path))
    said = settings.get("preprocessor", {})
    short = str(said.get("padding", "repeatpad"))
    said = clap.describe(
        found,
        path,
        entry,
        system="LAION-CLAP",
        layout=f"transformers, {'fused' if found.encoder.fusion else 'unfused'}",
        tokenizer="roberta",
        inference={**INFERENCE, "window": float(said.get("max_length_s", 10.0)), "short": short},
    )
    return clap.build(found, said)


def convert(content: Mapping[str, Any], settings: Mapping[str, Any] = {}, where: str = "CLAP") -> Converted:
    """Convert a file with or without feature fusion.

    Args:
        content: Tensors.
        settings: `config.json`, and under `preprocessor` the file of that name; what is not there is as published.
        where: The file, for messages.

    Raises:
        WeightsError: if tensors do not map, are missing, or have odd shapes; the first is named.
    """
    for part in ("audio_config", "text_config"):
        for name, known in ACTIVATIONS.items():
            if settings.get(part, {}).get(name, known) != known:
                raise WeightsError(f"{where}: {part} says {name}={settings[part][name]!r}; only {known!r} is known.")
    tensors = fuse(rename(content, TABLE, where), where)
    encoder, state = tower.encoder(below(tensors, "encoder."), settings.get("audio_config", {}), where, long="cut")
    text, words = clap_text.bert(below(tensors, "text."), settings.get("text_config", {}), where, "roberta", 1e-12)
    towers, towers_state = joint(text, words, tensors, where)
    found = Converted(
        encoder=encoder,
        state=state,
        frontend=frontend(settings.get("preprocessor", {}), mels=encoder.mels, fusion=encoder.fusion),
        towers=towers,
        towers_state=towers_state,
        dropped=clap.aside(content, TABLE),
    )
    clap.check_towers(found, where)
    return found


def frontend(said: Mapping[str, Any], *, mels: int, fusion: bool) -> FrontendConfig:
    """The front-end that `preprocessor_config.json` says: Slaney bands, or HTK ones where it truncates by fusion.

    Args:
        said: That file; may be empty.
        mels: Bands that the encoder takes.
        fusion: Whether the encoder fuses.
    """
    fused = said.get("truncation", "fusion" if fusion else "rand_trunc") == "fusion"
    fft = int(said.get("fft_window_size", 1024))
    return htsat(
        sample_rate=int(said.get("sampling_rate", 48000)),
        mel_rate=None,
        fft=fft,
        window=fft,
        hop=int(said.get("hop_length", 480)),
        mels=mels,
        low=float(said.get("frequency_min", 50)),
        high=float(said.get("frequency_max", 14000)),
        mel="htk" if fused else "slaney",
    )
