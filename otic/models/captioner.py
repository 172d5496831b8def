"""A model that hears and writes: encoder, mapper and language model (Pengi, arXiv 2305.11834).

    prefix = mapper(encoder(clip))                          k tokens
    p(text | clip, prompt) = prod_i p(text_i | prefix, prompt, text_<i)

Every task is a prompt and a text; nothing else tells them apart. The prompt ends with the end token, and so does the
text. In Pengi a frozen text encoder and a mapper of its own read the prompt; here the language model reads it itself.

Axes: b clips, t frames, f mel bins, m things heard, D their width, k prefix tokens, d the language model's width,
l text tokens, o options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.beam import beam_search
from otic.models.mapper import Mapper, MapperConfig
from otic.models.readout import SERIES, by_length, layers_of, read, width_read
from otic.models.text import fitted
from otic.models.text_block import Past, TextConfig
from otic.models.text_decoder import Decoder
from otic.models.tokenizer import Tokenizer, Tokens


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    text: TextConfig = field(default_factory=TextConfig)  # the language model: GPT-2 (kind="decoder")
    mapper: MapperConfig = field(default_factory=MapperConfig)  # what stands between
    pool: str = "mean"  # what is heard: `cls`, a name of `models.pooling`, several joined by `+` (Pengi: one vector);
    # or `series`: every frame, its mel bands averaged


class Captioner(nn.Module):
    """An encoder that can say what it hears.

    Args:
        encoder: A `ViT`, `HTSAT` or `Cnn14`.
        cfg: The rest.
        tokenizer: Of the language model.
        gen: Source of the first weights.

    Raises:
        ConfigError: when the config's parts do not fit together.
    """

    def __init__(
        self,
        encoder: nn.Module,
        cfg: CaptionerConfig = CaptionerConfig(),
        tokenizer: Tokenizer | None = None,
        gen: Generator | None = None,
    ):
        super().__init__()
        gen, tokenizer = gen or generator("captioner"), tokenizer or Tokenizer.plain()
        if cfg.text.kind != "decoder":
            raise ConfigError(f'text.kind="{cfg.text.kind}": only a decoder can write.')
        room, need = cfg.text.positions, cfg.mapper.prefix + 2 * tokenizer.length
        if room < need:
            raise ConfigError(
                f"text.positions={room}: prefix, prompt and text may take {need} ({tokenizer.length} each)."
            )
        self.cfg, self.encoder, self.tokenizer = cfg, encoder, tokenizer
        self.decoder = Decoder(fitted(cfg.text, tokenizer), gen)
        self.mapper = Mapper(width_read(encoder, cfg.pool), self.decoder.width, cfg.pool == SERIES, cfg.mapper, gen)

    def prefix(
        self, spec: Float[Tensor, "b c t f"], frames: Int[Tensor, " b"] | None = None, gen: Generator | None = None
    ) -> Float[Tensor, "b k d"]:
        """What the language model is told of clips.

        Args:
            spec: Spectrograms of one length, padded at the end.
            frames: Real frames of each clip, which alone count; None: all.
            gen: Source of what is random while training.
        """
        heard = self.hear(spec, frames, gen)
        lengths = torch.tensor([len(h) for h in heard], device=spec.device)
        real = torch.arange(int(lengths.max()), device=spec.device) < lengths[:, None]
        return self.mapper(pad_sequence(heard, batch_first=True), real)

    def hear(
        self, spec: Float[Tensor, "b c t f"], frames: Int[Tensor, " b"] | None = None, gen: Generator | None = None
    ) -> list[Float[Tensor, "_ D"]]:
        """The encoder's frames of each clip, or one pooled vector (m = 1); clips of one length go through together."""

        def values(part: Tensor, rows: list[int]) -> Tensor:
            return read(*layers_of(self.encoder, part, gen=gen), self.cfg.pool)

        return by_length(self.encoder, spec, frames, values)

    def logits(
        self, prefix: Float[Tensor, "b k d"], ids: Int[Tensor, "b l"], at: Bool[Tensor, "b l"], gen: Generator | None
    ) -> Float[Tensor, "a v"]:
        """Scores of the tokens `at` some places, from all that stands before each."""
        x = torch.cat((prefix, self.decoder.embed(ids[:, :-1]).to(prefix)), 1)
        states = self.decoder.run(x, gen=gen)[:, prefix.shape[1] - 1 :]
        return self.decoder.logits(states[at][None])[0]

    def line(self, prompts: Sequence[str], texts: Sequence[str]) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Prompt and text of each clip in one row, padded at the right, and where the text stands."""
        place = self.mapper.prefix.device
        return in_line(self.tokens(prompts, place), self.tokens(texts, place), self.tokenizer.pad)

    def tokens(self, texts: Sequence[str], place: torch.device) -> Tokens:
        ids, mask = self.tokenizer(texts)
        return Tokens(ids.to(place), mask.to(place))

    def begin(self, prefix: Float[Tensor, "b k d"], prompt: str) -> Float[Tensor, "b l d"]:
        """All that stands before the answer to a prompt."""
        asked = self.decoder.embed(self.tokens([prompt], prefix.device).ids)
        return torch.cat((prefix, asked.to(prefix).expand(len(prefix), -1, -1)), 1)

    @torch.no_grad()
    def write(
        self, prefix: Float[Tensor, "b k d"], prompt: str = "", beams: int = 4, longest: int = 40, power: float = 1.0
    ) -> tuple[list[list[str]], Float[Tensor, "b w"]]:
        """The `beams` likeliest texts of each clip, best first, and what they are worth; see `beam_search`."""
        start = self.begin(prefix, prompt)
        longest = min(longest, self.cfg.text.positions - start.shape[1])
        found = beam_search(self.decoder, start, self.tokenizer.end, beams, longest, power)
        said = [
            [self.tokenizer.decode(ids[: n - int(done)]) for ids, n, done in zip(*clip, strict=True)]
            for clip in zip(found.ids.tolist(), found.lengths.tolist(), found.ended.tolist(), strict=True)
        ]
        return said, found.scores

    @torch.no_grad()
    def weigh(self, prefix: Float[Tensor, "b k d"], prompt: str, options: Sequence[str]) -> Float[Tensor, "b o"]:
        """log p(option | clip, prompt) of each of some answers, the end token included."""
        ids, mask = self.tokens(options, prefix.device)
        past, b, o = Past(), len(prefix), len(options)
        first = self.decoder.run(self.begin(prefix, prompt), past=past)[:, -1:]
        past.pick(torch.arange(b, device=prefix.device).repeat_interleave(o))
        states = first.repeat_interleave(o, 0)
        if ids.shape[1] > 1:
            rest = self.decoder.embed(ids[:, :-1]).to(prefix).repeat(b, 1, 1)
            states = torch.cat((states, self.decoder.run(rest, past=past)), 1)
        log = self.decoder.logits(states).float().log_softmax(-1).unflatten(0, (b, o))  # [b, o, l, v]
        each = log.gather(3, ids[None, :, :, None].expand(b, -1, -1, -1))[..., 0]
        return each.masked_fill(~mask, 0.0).sum(-1)


def in_line(prompts: Tokens, texts: Tokens, pad: int) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
    """Two texts of each row one after the other without a gap, and where the second stands."""
    first, second = prompts.mask.sum(1)[:, None], texts.mask.sum(1)[:, None]
    place = torch.arange(int((first + second).max()), device=first.device)[None]
    after = (place >= first) & (place < first + second)
    one = prompts.ids.gather(1, place.expand(len(first), -1).clamp_max(prompts.ids.shape[1] - 1))
    two = texts.ids.gather(1, (place - first).clamp(0, texts.ids.shape[1] - 1))
    return torch.where(place < first, one, torch.where(after, two, pad)), after


def to_file(captioner: Captioner) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a weights file keeps beside the encoder: tensors by name, and the config to build them again."""
    tensors = {f"captioner.{n}": t for n, t in captioner.state_dict().items() if not n.startswith("encoder.")}
    return tensors, {"captioner": {"config": to_dict(captioner.cfg), "tokenizer": captioner.tokenizer.to_dict()}}


def from_file(encoder: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Captioner | None:
    """The captioner that a weights file holds around its encoder; None when it holds none.

    Raises:
        ConfigError: when the config does not fit.
        RuntimeError: when the tensors are not those which it asks for.
    """
    if "captioner" not in config:
        return None
    said = config["captioner"]
    captioner = Captioner(encoder, from_dict(CaptionerConfig, said["config"]), Tokenizer.from_dict(said["tokenizer"]))
    own = {n.removeprefix("captioner."): t for n, t in tensors.items() if n.startswith("captioner.")}
    captioner.load_state_dict(own | {f"encoder.{n}": t for n, t in encoder.state_dict().items()})
    return captioner.eval()
