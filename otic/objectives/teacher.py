"""Teachers: frozen models that say what a student's patches should be like (MAM-CLAP, distillation).

A teacher hears the batch's wave and answers with tokens of its own, each with its place in seconds and hertz; the
objective reads them on the student's grid (`otic.models.cells`). It is always in eval mode, gives no gradient, and is
no part of what the student trains or saves.

A name stands for a MODEL, except for "self": the student's own moving average, which needs no other model. It sees the
student's spectrogram unmasked, and its targets are the layer average of data2vec (arXiv 2202.03555).

Axes: b clips, s samples, m teacher tokens, e their width, n student patches, p the pooled width.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from otic.audio.frontend import Frontend, FrontendConfig
from otic.audio.sinc import sinc_resample
from otic.core.batch import Batch
from otic.core.ema import ema_copy, ema_update
from otic.core.errors import ConfigError, OticWarning
from otic.models.cells import Cells, Ruler, area, bilinear, blend, heard, join, patch_cells
from otic.models.targets import layer_mean
from otic.models.vit import ViT

SELF = "self"  # the name of the student's moving average
REST = 0.08  # seconds
Align = Literal["area", "bilinear"]
OVERLAPS: dict[str, Callable[[Cells, Cells], Tensor]] = {"area": area, "bilinear": bilinear}


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of a batch.

    Attributes:
        tokens: Its token map.
        cells: Where each token lies, in seconds from the beginning of the crop and in Hz.
        pooled: One vector for each clip, where the teacher has one.
    """

    tokens: Float[Tensor, "b m e"]
    cells: Cells
    pooled: Float[Tensor, "b p"] | None = None

    def on(self, student: Cells, align: Align = "area") -> tuple[Float[Tensor, "b n e"], Bool[Tensor, "b n"]]:
        """The tokens on the student's grid, float32, and which of its patches they cover."""
        return blend(OVERLAPS[align](student, self.cells), self.tokens)


class Teacher(nn.Module, ABC):
    """A frozen model.

    Attributes:
        name: For logs and cards.
        rate: Hz of the waves that it hears.
        width: Of its tokens.
        pooled_width: Of its pooled vectors; None where it has none.
        labels_used: Whether it learned from human labels: its students then did so too.
    """

    name: str
    rate: int
    width: int
    pooled_width: int | None
    labels_used: bool = False

    @abstractmethod
    def forward(self, batch: Batch, rate: int) -> Lesson:
        """What it says of a batch whose wave is at `rate` Hz."""

    def identity(self) -> str:
        """Changes whenever its answers could; "" of one that changes with the student."""
        return ""

    def train(self, mode: bool = True) -> Teacher:
        """A teacher stays in eval mode, whatever happens around it."""
        return super().train(False)


class WindowTeacher(Teacher):
    """A teacher that hears `window` seconds at once: longer waves in consecutive windows, whose tokens stand one after
    the other and whose pooled vectors are averaged by duration. What it says of a clip can be kept on disk."""

    window: float

    @abstractmethod
    def hear(self, wave: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Lesson:
        """What it says of waves at its own rate, which are not longer than its window."""

    @abstractmethod
    def identity(self) -> str:
        """Changes whenever its answers could: what a cache of them is filed under."""

    @torch.no_grad()
    def forward(self, batch: Batch, rate: int) -> Lesson:
        wave, lengths = at_rate(batch, rate, self)
        cuts = windows(wave.shape[1], self.window, self.rate)
        parts = [self.hear(wave[:, a:b], (lengths - a).clamp(1, b - a)) for a, b in cuts]
        seconds = torch.stack([(lengths - a).clamp(0, b - a) for a, b in cuts], 1).float()
        share = (seconds / seconds.sum(1, keepdim=True)).to(wave.device)  # of each window in its clip
        pooled = [part.pooled.float() for part in parts if part.pooled is not None]
        return Lesson(
            torch.cat([part.tokens for part in parts], 1),
            join([part.cells.later(a / self.rate) for part, (a, _) in zip(parts, cuts, strict=True)]),
            (torch.stack(pooled, 1) * share[..., None]).sum(1) if pooled else None,
        )


class EncoderTeacher(WindowTeacher):
    """Any encoder of ours with its front-end; levels and normalisation are the front-end's affair.

    Args:
        encoder: Frozen in place.
        frontend: What it was trained with.
        name: For logs and cards.
        window: Seconds that it hears at once.
        pool: What its pooled vector is: the mean of the tokens that hold sound, or the CLS token.
        labels_used: Whether it learned from human labels.

    Raises:
        ConfigError: if the CLS token is wanted and there is none.
    """

    def __init__(
        self,
        encoder: ViT,
        frontend: FrontendConfig,
        name: str = "teacher",
        *,
        window: float | int = 10.0,
        pool: Literal["mean", "cls"] = "mean",
        labels_used: bool = False,
    ):
        super().__init__()
        if pool == "cls" and not encoder.cfg.cls:
            raise ConfigError(f'{name}: pool="cls", but this encoder has no CLS token.')
        self.name, self.window, self.pool, self.labels_used = name, float(window), pool, labels_used
        self.encoder, self.frontend = encoder.requires_grad_(False), Frontend(frontend)
        self.rate, self.width, self.pooled_width = frontend.sample_rate, encoder.width, encoder.width
        self.ruler = Ruler.of(frontend)
        self.eval()

    @torch.no_grad()
    def hear(self, wave: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Lesson:
        encoder, patch, step = self.encoder, self.encoder.patch, self.encoder.cfg.step
        frames = self.frontend.frames(wave.shape[1])
        frames = patch[0] + -(-max(0, frames - patch[0]) // step[0]) * step[0]  # the last patch is filled up
        encoded = encoder(self.frontend(wave, lengths, frames))
        cells = patch_cells(self.ruler, encoder.grid(frames), patch, step)
        if self.pool == "cls":
            return Lesson(encoded.patches, cells, encoded.cls)
        real = heard(cells, lengths.cpu().double() / self.rate).to(wave)[..., None]
        return Lesson(encoded.patches, cells, (encoded.patches.float() * real).sum(1) / real.sum(1))

    def identity(self) -> str:
        digest = hashlib.sha256(repr((type(self).__name__, self.encoder.cfg, self.frontend.cfg)).encode())
        digest.update(repr((self.window, self.pool)).encode())
        return fingerprint(self.encoder, digest)


class SelfTeacher(Teacher):
    """The student's moving average; `follow` moves it."""

    name = SELF

    def __init__(self, student: ViT, ruler: Ruler):
        super().__init__()
        self.encoder, self.ruler = ema_copy(student), ruler
        self.rate, self.width, self.pooled_width = ruler.rate, student.width, student.width
        self.eval()

    @torch.no_grad()
    def forward(self, batch: Batch, rate: int) -> Lesson:
        assert batch.spec is not None, "the front-end has not filled the batch"
        encoder, grid = self.encoder, self.encoder.grid(batch.spec.shape[2])
        tokens = layer_mean(encoder(batch.spec, taps=True).layers, encoder.cfg.extra)
        cells = patch_cells(self.ruler, grid, encoder.patch, encoder.cfg.step)
        return Lesson(tokens, cells, tokens.mean(1))

    def follow(self, student: ViT, decay: float) -> None:
        """After each step."""
        ema_update(self.encoder, student, decay)


class Staff(nn.Module):
    """The teachers of an objective, in order. Loaded ones move with it from device to device, and that is all: they
    are no part of its parameters, its state or its mode. Its own moving average is.

    Args:
        names: As configured.
        given: The loaded models, in the order of the names that are not "self"; all of them where no name is given.
        student: What "self" follows.
        ruler: Of the student's spectrograms.
    """

    held: tuple[Teacher, ...]

    def __init__(self, names: Sequence[str], given: Sequence[Teacher], student: ViT, ruler: Ruler):
        super().__init__()
        others = [name for name in names if name != SELF]
        if len(names) - len(others) > 1 or (names and len(others) != len(given)):
            raise ConfigError(f"teachers {list(names)}: {len(given)} of them were loaded; each may be there once.")
        self.own = SelfTeacher(student, ruler) if len(others) < len(names) else None
        self.__dict__["held"] = tuple(teacher.eval().requires_grad_(False) for teacher in given)  # not registered
        self._names = tuple(names) or tuple("" for _ in given)

    def __iter__(self) -> Iterator[Teacher]:
        held = iter(self.held)
        for name in self._names:
            if name == SELF:
                assert self.own is not None
                yield self.own
            else:
                yield next(held)

    def __len__(self) -> int:
        return len(self._names)

    def follow(self, student: ViT, decay: float) -> None:
        """After each step: the moving average moves."""
        if self.own is not None:
            self.own.follow(student, decay)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Staff:
        for teacher in self.held:
            teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)


def student_cells(ruler: Ruler, encoder: ViT, frames: int) -> Cells:
    """The cells of an encoder's patches."""
    return patch_cells(ruler, encoder.grid(frames), encoder.patch, encoder.cfg.step)


def sounding(cells: Cells, batch: Batch, rate: int) -> Bool[Tensor, "b n"]:
    """Which of the student's patches hold sound for at least half of their time."""
    return heard(cells, batch.lengths.cpu().double() / rate).to(batch.wave.device)


def windows(samples: int, seconds: float, rate: int) -> list[tuple[int, int]]:
    """Begin and end of consecutive windows; a rest shorter than `REST` goes unheard."""
    size = max(1, round(seconds * rate))
    first = [a for a in range(0, samples, size) if a == 0 or samples - a >= REST * rate]
    return [(a, min(a + size, samples)) for a in first]


def at_rate(batch: Batch, rate: int, teacher: Teacher) -> tuple[Float[Tensor, "b s"], Tensor]:
    """Wave and lengths at the teacher's rate; a lower one than that warns, since the upper band stays empty."""
    if rate == teacher.rate:
        return batch.wave, batch.lengths
    if rate < teacher.rate:
        warnings.warn(
            OticWarning(f"{teacher.name} wants {teacher.rate} Hz, the data is at {rate} Hz: its upper band is empty."),
            stacklevel=3,
        )
    with torch.autocast(batch.wave.device.type, enabled=False):
        wave = sinc_resample(batch.wave.float(), rate, teacher.rate)
    return wave, (batch.lengths * teacher.rate + rate - 1) // rate


def fingerprint(module: nn.Module, digest: Any) -> str:
    """Hex digits that follow from a module's tensors, added to what `digest` holds already."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return str(digest.hexdigest())[:16]
