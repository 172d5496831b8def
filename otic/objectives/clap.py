"""CLAP: contrastive language-audio pre-training (Elizalde et al. 2022, arXiv 2206.04769; 2023, 2309.05767).

A clip and its caption should lie nearer to each other than to all other captions and clips of the batch: the mean of
two cross-entropies, over the rows and over the columns of the matrix of scaled cosines. No training code was
published; where the papers are silent, a field says so.

softmax     that loss, optionally with the weights of hard negatives (Radenovic et al. 2023, arXiv 2301.02280, as in
            MGA-CLAP, 2408.12021)
sigmoid     each pair by itself: -log sigmoid(+-(scale cos + bias)) (SigLIP, arXiv 2303.15343, which begins with
            towers.bias=-10 and towers.scale=2.3026)

LAION-CLAP's further loss with heads of its own (`models.contrast.crossed`) is there for parity alone.

A tower that is frozen is in evaluation mode, and what it says of a text (with `remember`: of a clip) is computed once.

Axes: b clips of this process, m clips of all processes, n texts, e joint width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic.core.batch import Batch, Loss
from otic.core.errors import ConfigError, DataError
from otic.models.contrast import hardness, sigmoid
from otic.models.projector import everyone
from otic.models.tokenizer import Tokenizer, Tokens
from otic.models.two_tower import TwoTower, TwoTowerConfig, to_file
from otic.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class CLAPConfig:
    towers: TwoTowerConfig = field(default_factory=TwoTowerConfig)  # the text tower, the heads, the scale
    language: str = ""  # folder or hub id of a published text tower (GPT-2, a sentence encoder, BERT, RoBERTa): its
    # weights, shape and tokenizer in place of `towers.text`; "": a tower that learns from nothing
    vocabulary: int = 2048  # most tokens of the BPE that a run trains on its captions, where no tokenizer is given
    tokenizer: str = ""  # folder or hub id with a published tokenizer; "": a BPE trained on the captions
    loss: Literal["softmax", "sigmoid"] = "softmax"  # over all pairs of the batch, or each pair by itself
    hard: float = 0.0  # beta of the weights of hard negatives (MGA-CLAP: 0.15); 0: all negatives count the same
    hard_negatives: bool = False  # the data's own nearly right captions are further negatives for their clips
    same: Literal["masked", "negatives"] = "masked"  # clips with word for word the same caption: left out, or negatives
    # (the papers do not say)
    freeze_audio: bool = False  # the audio tower stays as it is (papers: both learn)
    freeze_text: bool = False  # so does the text tower
    remember: bool = False  # keep in memory what a frozen audio tower said of each crop (for crops that come again)


class CLAP(Objective):
    """Audio tower, text tower and loss.

    Args:
        encoder: The audio tower.
        cfg: Settings.
        gen: Source of the first weights of text tower and heads.
        tokenizer: Of the captions; None: plain bytes.
    """

    labels_used = "captions"  # written by people, or made from their labels

    def __init__(self, encoder: nn.Module, cfg: CLAPConfig, gen: Generator, tokenizer: Tokenizer | None = None):
        super().__init__()
        if cfg.remember and not cfg.freeze_audio:
            raise ConfigError("remember=true: only what a frozen audio tower says stays true. Set freeze_audio=true.")
        if cfg.loss == "sigmoid" and (cfg.hard or cfg.hard_negatives):
            raise ConfigError("loss=sigmoid has no use for hard and hard_negatives: leave them out, or take softmax.")
        if cfg.loss == "softmax" and cfg.towers.bias is not None:
            raise ConfigError(f"towers.bias={cfg.towers.bias:g}: a softmax does not learn it. Set loss=sigmoid.")
        self.cfg = cfg
        self.towers = TwoTower(encoder, cfg.towers, tokenizer or Tokenizer.plain(), gen)
        self._frozen = [
            part for part, frozen in ((encoder, cfg.freeze_audio), (self.towers.text, cfg.freeze_text)) if frozen
        ]
        for part in self._frozen:
            part.requires_grad_(False)
        self._heard: dict[str, Tensor] = {}
        self._understood: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> CLAP:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    @property
    def encoder(self) -> nn.Module:
        return self.towers.encoder

    @property
    def language(self) -> nn.Module:
        """The text tower, for published weights to be put into."""
        return self.towers.text

    def know(self, texts: Sequence[str], vectors: Float[Tensor, "n d"]) -> None:
        """What the frozen text tower says of these texts was computed before."""
        assert self.cfg.freeze_text
        self._understood |= dict(zip(texts, vectors, strict=True))

    def extras(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return to_file(self.towers)

    def forward(self, batch: Batch, gen: Generator) -> Loss:
        captions, wrong = self._texts(batch)
        audio = F.normalize(self.towers.place(self._hear(batch, gen), gen).float(), dim=-1)  # [b, e]
        texts = self._say([*captions, *wrong], gen)
        words, odd = texts[: len(audio)], texts[len(audio) :]

        audio, words = everyone(audio), everyone(words)  # [m, e]
        if self.training and len(audio) < 2 and not wrong:
            raise ConfigError("CLAP compares clips, two or more at once: raise batch_size, or lower train.accumulate.")
        cosine = audio @ words.mT  # [m, m]
        others = self._others(captions, len(audio), audio.device)
        loss = (
            self._softmax(cosine, others, audio, everyone(odd), wrong)
            if self.cfg.loss == "softmax"
            else self._sigmoid(cosine, others)
        )
        with torch.no_grad():
            right = (cosine.argmax(1) == torch.arange(len(cosine), device=cosine.device)).float().mean()
        parts = {
            "accuracy": right,
            "scale": self.towers.scale.detach(),
            "match_cosine": cosine.diagonal().mean().detach(),
        }
        return Loss(loss, parts)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """The scale is brought back below its bound, and above 1 (LAION-CLAP). A scale that `TwoTower.scale` cuts gets
        no gradient, and would never come down again; hence a hair below."""
        self.towers.log_scale.clamp_(0.0, math.log(self.towers.cfg.max_scale) - 1e-6)

    def _softmax(
        self,
        cosine: Float[Tensor, "m m"],
        others: Bool[Tensor, "m m"],
        audio: Float[Tensor, "m e"],
        odd: Float[Tensor, "n e"],
        wrong: Sequence[str],
    ) -> Float[Tensor, ""]:
        """Cross-entropies over both axes; captions that are nearly right (`odd`, this process's being `wrong`) stand in
        their clip's row alone."""
        scale, own = self.towers.scale, torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        logits = (scale * cosine).masked_fill(~(others | own), -torch.inf)
        target = torch.arange(len(cosine), device=cosine.device)
        rows, columns = logits, logits.mT
        if self.cfg.hard:
            rows, columns = rows + hardness(rows, self.cfg.hard), columns + hardness(columns, self.cfg.hard)
        if len(odd):
            near = scale * (audio * odd).sum(-1, keepdim=True)
            rows = torch.cat((rows, near.masked_fill(~self._some(wrong)[:, None], -torch.inf)), 1)
        return (F.cross_entropy(rows, target) + F.cross_entropy(columns, target)) / 2

    def _sigmoid(self, cosine: Float[Tensor, "m m"], others: Bool[Tensor, "m m"]) -> Float[Tensor, ""]:
        own = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        bias = 0.0 if self.towers.bias is None else self.towers.bias
        return sigmoid(self.towers.scale * cosine + bias, own | others)

    def _texts(self, batch: Batch) -> tuple[list[str], list[str]]:
        """The clips' captions, and their nearly right ones where these are wanted."""
        if batch.text is None:
            raise DataError("CLAP learns from captions, and these clips have none. Name data with a column `caption`.")
        if not self.cfg.hard_negatives:
            return list(batch.text), []
        if batch.negatives is None:
            raise DataError("hard_negatives=true, but the data has no column `hard_negative`.")
        return list(batch.text), list(batch.negatives)

    def _some(self, wrong: Sequence[str]) -> Bool[Tensor, " n"]:
        """Which clips of all processes have a nearly right caption."""
        sizes = torch.tensor([len(text) for text in wrong], dtype=torch.long, device=self.towers.log_scale.device)
        return everyone(sizes) > 0

    def _hear(self, batch: Batch, gen: Generator) -> list[Tensor]:
        """What the audio tower says of each clip; of a clip it has heard before, what it said then."""
        if not (self.cfg.remember and batch.ids):
            assert batch.spec is not None
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cfg.freeze_audio):
                return self.towers.hear(batch.spec, batch.frames, gen=gen)
        for i, name in enumerate(batch.ids):
            if name not in self._heard:  # each alone: what is remembered must not depend on its company
                assert batch.spec is not None
                frames = None if batch.frames is None else batch.frames[i : i + 1]
                with torch.no_grad():
                    self._heard[name] = self.towers.hear(batch.spec[i : i + 1], frames)[0].half()
        return [self._heard[name].float() for name in batch.ids]

    def needs_spec(self, batch: Batch) -> bool:
        return not (self.cfg.remember and batch.ids and all(name in self._heard for name in batch.ids))

    def _say(self, texts: Sequence[str], gen: Generator) -> Float[Tensor, "n e"]:
        """Texts in the joint space, each distinct one once."""
        distinct = list(dict.fromkeys(texts))
        row = {text: k for k, text in enumerate(distinct)}
        rows = torch.tensor([row[text] for text in texts], device=self.towers.log_scale.device)
        said = self._known(distinct) if self.cfg.freeze_text else self.towers.understand(self._tokens(distinct), gen)
        return F.normalize(self.towers.text_head(said, gen).float(), dim=-1)[rows]

    def _tokens(self, texts: list[str]) -> Tokens:
        assert self.towers.tokenizer is not None
        return self.towers.tokenizer(texts).to(self.towers.log_scale.device)

    def _known(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """What the frozen text tower says of each text: computed once, each alone, whatever else is in the batch."""
        place = self.towers.log_scale.device
        with torch.no_grad(), torch.autocast(place.type, enabled=False):
            for text in texts:
                if text not in self._understood:
                    self._understood[text] = self.towers.understand(self._tokens([text]))[0].float().cpu()
        return torch.stack([self._understood[text] for text in texts]).to(place)

    def _others(self, captions: Sequence[str], clips: int, device: torch.device) -> Bool[Tensor, "m m"]:
        """Which pairs are negatives: not a clip's own caption, nor one that reads the same."""
        if self.cfg.same == "negatives":
            return ~torch.eye(clips, dtype=torch.bool, device=device)
        keys = everyone(torch.tensor([key(text) for text in captions], device=device))
        return keys[:, None] != keys[None]


def key(text: str) -> int:
    """A number for a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:7], "big")
