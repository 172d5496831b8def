"""I-JEPA's layout (facebookresearch/ijepa @ 52c1ae9), which A-JEPA shares as far as it is known.

pickle        `{encoder, predictor, target_encoder, opt, ...}`, tensor names below `module.` (distributed training)
safetensors   `encoder.*`, `predictor.*`, `target_encoder.*`

Grids are row by row, token = width * row + column: with time as the rows that is our order. The target encoder, the
moving average, is what I-JEPA evaluates; `which="context"` gives the other one. Published files are of images (three
channels) and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.core.errors import ConfigError, WeightsError
from otic.models.positions import sincos
from otic.models.predictor import Predictor, PredictorConfig
from otic.models.vit import ViT, ViTConfig
from otic.weights.catalogue import Entry
from otic.weights.pickles import load_pickle
from otic.weights.store import Loaded
from otic.weights.upstream.table import below, card, guessed, mlp_ratio, must_fit, on_meta, rename, require, same

Which = Literal["target", "context"]
_LAYERS = r"(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_MODULE = r"(?:module\.)?"
ENCODER = (
    (_MODULE + r"blocks\." + _LAYERS, r"blocks.\1.\2.\3"),
    (_MODULE + r"patch_embed\.proj\.(weight|bias)", r"proj.\1"),
    (_MODULE + r"norm\.(weight|bias)", r"norm.\1"),
    (_MODULE + r"pos_embed", "position_table"),
)
PREDICTOR = (
    (_MODULE + r"predictor_blocks\." + _LAYERS, r"blocks.\1.\2.\3"),
    (_MODULE + r"predictor_(embed|norm|proj)\.(weight|bias)", r"\1.\2"),
    (_MODULE + r"mask_token", "mask_token"),
    (_MODULE + r"predictor_pos_embed", "position_table"),
)
PARTS = ("encoder", "predictor", "target_encoder")
HEADS = {1280: 16, 1408: 16, 1664: 16}  # huge and larger; the others have 64 channels a head


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in our terms; every state fits `load_state_dict` of the module which its config builds.

    Attributes:
        encoder: For `ViT`.
        target: State of the moving average.
        context: State of the encoder that was trained.
        predictor: For `Predictor`, with the encoder's width.
    """

    encoder: ViTConfig
    target: dict[str, Tensor]
    context: dict[str, Tensor]
    predictor: PredictorConfig
    predictor_state: dict[str, Tensor]


def matches(content: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint with all three networks, as a pickle nests or as safetensors name them."""
    if all(isinstance(content.get(part), Mapping) for part in PARTS):
        return any(name.endswith("predictor_embed.weight") for name in content["predictor"])
    return "predictor.predictor_embed.weight" in content and "target_encoder.patch_embed.proj.weight" in content


def loaded(
    content: Mapping[str, Any],
    settings: Mapping[str, Any],
    path: Path,
    entry: Entry | None = None,
    which: Which = "target",
) -> Loaded:
    """An encoder; the predictor is left (see `read`).

    Args:
        content: What the file holds.
        settings: The `config.json` beside it; empty without one.
        path: The file, for messages and for a name.
        entry: What the catalogue says of it.
        which: The moving average, or the encoder that was trained.

    Raises:
        WeightsError: as `read`.
    """
    found = convert(content, settings, str(path))
    encoder = ViT(found.encoder)
    encoder.load_state_dict(found.target if which == "target" else found.context)
    said = card(
        path,
        entry,
        system="A-JEPA",
        layout="I-JEPA",
        encoder=which,
        inference={"window": 10.0, "pool": "mean"},
        **guessed("heads", found.encoder.heads, settings.get("num_heads"), entry),
    )
    frontend = FrontendConfig(mels=found.encoder.mels, mean=-4.2677393, std=4.5689974)  # Audio-MAE's, as in the paper
    return Loaded(encoder.eval(), frontend, said)


def read(path: str | Path, settings: Mapping[str, Any] | None = None) -> Converted:
    """Read a pickle or a safetensors file with all it holds, the predictor too.

    Args:
        path: The file.
        settings: As `convert`.

    Raises:
        WeightsError: if it is damaged, unsafe, of another layout, or lacks or adds tensors (the first is named).
    """
    path = Path(path)
    content: Any = load_file(path) if path.suffix == ".safetensors" else load_pickle(path)
    if not isinstance(content, Mapping) or not matches(content):
        raise WeightsError(f"{path}: not an I-JEPA checkpoint: it lacks one of {', '.join(PARTS)}.")
    return convert(content, settings or {}, str(path))


def convert(content: Mapping[str, Any], settings: Mapping[str, Any], where: str = "checkpoint") -> Converted:
    """Tensors as they stand in the file, into ours.

    Args:
        content: A checkpoint that `matches`.
        settings: What tensors do not tell, where known: `num_heads` (else of 64 channels each), `predictor_heads`
            (else the encoder's; both fewer where they do not divide the width), and `mel_bins` (else of the grid whose
            codes the positions are).
        where: The file, for messages.

    Raises:
        WeightsError: as `read`.
    """
    nested = all(isinstance(content.get(part), Mapping) for part in PARTS)
    parts = {part: content[part] if nested else below(content, f"{part}.") for part in PARTS}
    context, target = (
        _flat(rename(parts[part], ENCODER, f"{where} ({part})"), f"{where} ({part})")
        for part in ("encoder", "target_encoder")
    )
    encoder, grid = _encoder(target, settings, where)
    for part, state in (("encoder", context), ("target_encoder", target)):
        must_fit(_built(where, ViT, encoder), state, f"{where} ({part})")
    state = rename(parts["predictor"], PREDICTOR, f"{where} (predictor)")
    table = _flat(state, f"{where} (predictor)").get("position_table")
    state = {name: tensor for name, tensor in state.items() if name != "position_table"}
    predictor = _predictor(state, settings, encoder, f"{where} (predictor)")
    if table is None or not _formula(table, grid):
        raise WeightsError(f"{where} (predictor): its positions are not the sin-cos codes of a {grid} grid.")
    must_fit(_built(where, Predictor, encoder.width, predictor), state, f"{where} (predictor)")
    return Converted(encoder=encoder, target=target, context=context, predictor=predictor, predictor_state=state)


def _built(where: str, *build: Any) -> Any:
    try:
        return on_meta(*build)
    except ConfigError as error:
        raise WeightsError(f"{where}: its settings do not fit its tensors: {error}") from error


def _flat(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The table of positions without its axis of length one."""
    return {**state, "position_table": require(state, "position_table", where).flatten(0, -2)}


def _formula(table: Tensor, grid: tuple[int, int]) -> bool:
    """Whether a table holds our codes."""
    return same(table, sincos(grid, table.shape[1]), atol=5e-4)


def _bands(table: Tensor, usual: int) -> int:
    """Patches along frequency of the grid whose codes a table holds; where it holds none: square, or the usual ones."""
    n, square = len(table), math.isqrt(len(table))
    likely = square if square**2 == n else max(1, usual)
    return next((b for b in (likely, *range(1, n + 1)) if n % b == 0 and _formula(table, (n // b, b))), likely)


def _heads(width: int, most: int) -> int:
    """As many heads as that, or the most below it that divide a width."""
    return next(heads for heads in range(max(1, most), 0, -1) if width % heads == 0)


def _encoder(state: Mapping[str, Tensor], settings: Mapping[str, Any], where: str) -> tuple[ViTConfig, tuple[int, int]]:
    proj, table = require(state, "proj.weight", where), state["position_table"]
    if proj.ndim != 4 or proj.shape[1] != 1:
        raise WeightsError(
            f"{where}: embeds {list(proj.shape[1:])}: not patches of one channel, but of images or video."
        )
    patch, width, n = (proj.shape[2], proj.shape[3]), len(proj), len(table)
    bands = int(settings.get("mel_bins", 0)) // patch[1] or _bands(table, 128 // patch[1])
    grid = (n // bands, bands)
    formula = _formula(table, grid)
    cfg = ViTConfig(
        width=width,
        depth=_depth(state),
        heads=int(settings.get("num_heads") or _heads(width, HEADS.get(width, width // 64))),
        mlp_ratio=mlp_ratio(require(state, "blocks.0.mlp.fc1.weight", where), width),
        patch=patch,
        mels=bands * patch[1],
        norm="pre",
        cls=False,
        positions="sincos" if formula else "table",
        table=grid if formula else (n, 1),
    )
    return cfg, grid


def _predictor(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], encoder: ViTConfig, where: str
) -> PredictorConfig:
    width = len(require(state, "embed.weight", where))
    return PredictorConfig(
        width=width,
        depth=_depth(state),
        heads=int(settings.get("predictor_heads") or _heads(width, encoder.heads)),
        mlp_ratio=mlp_ratio(require(state, "blocks.0.mlp.fc1.weight", where), width),
        eps=encoder.eps,
    )


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})
