"""A-JEPA: patches predicted in the latent space of a moving average (Fei, Fan, Huang 2023, arXiv 2311.15830).

An encoder sees a context block of the spectrogram, its moving average sees all of it; a predictor says, from the
context alone, what the average makes of several target blocks. It is I-JEPA (Assran et al. 2023, arXiv 2301.08243) with
a curriculum: over the run more and more steps hide everything that shares a time step or a mel row with a target.

The authors published no code. Each choice that their text leaves open is a field whose comment says "open"; a
reproduction must state them.

Axes: b clips, e contexts and m targets of each, n patches, k of them in a context, j in a target, d width;
q = m e b rows: target first, then context, then clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.batch import Batch, Loss
from otic.core.ema import check_decay, ema_copy, ema_update
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.masking import Curriculum, Views
from otic.masking.multi_block import Removal
from otic.models.block import Block
from otic.models.heads import PixelHead, normalised_patches
from otic.models.predictor import Predictor, PredictorConfig
from otic.models.targets import along_main
from otic.models.vit import ViT
from otic.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class BlocksConfig:
    """One kind of mask; the defaults are the easy one."""

    targets: int = 4  # target blocks of a clip
    scale: tuple[float, float] = (0.15, 0.2)  # range of a block's share of the grid
    aspect: tuple[float, float] = (0.75, 1.5)  # range of its aspect ratio; open for the hard mask: the same
    remove: Removal = "blocks"  # what leaves the context: the targets, or all that shares their time, freq, or either


HARD = BlocksConfig(targets=3, scale=(0.05, 0.075), remove="cross")


@dataclass(frozen=True, kw_only=True)
class JEPAConfig:
    curriculum: Curriculum = field(default_factory=Curriculum)  # which steps get the hard masks
    easy: BlocksConfig = field(default_factory=BlocksConfig)  # random blocks
    hard: BlocksConfig = HARD  # "time-frequency aware"; open what it removes: "cross" is our reading
    context: tuple[float, float] = (0.85, 1.0)  # range of the context block's share of the grid
    contexts: int = 1  # context blocks of a clip
    sampler: Literal["multi_block", "ijepa_legacy", "unstructured"] = "multi_block"  # geometry of blocks is open: in
    # the grid's proportions; I-JEPA's, square in patches, whose contexts lose the targets alone whatever `remove` says;
    # or none: single patches (better in arXiv 2405.08679), the same on easy and hard steps
    keep: float = 0.3  # "unstructured": share of the patches in the context, all others are one target
    min_keep: int | None = None  # fewest patches of a context; open: None: 4 or 3 % of the grid (legacy: 10)
    cross_from: int = 128  # grids with fewer patches remove "time" where "cross" is asked for; open
    target_view: Literal["full", "masked_only"] = "full"  # what the teacher sees: all, or each target alone (as in M2D)
    normalise: bool = True  # LayerNorm of the targets' features; open: as in I-JEPA's code
    centre: Literal["no", "place", "clip"] = "no"  # ours, before `normalise`: targets less the batch's mean at their
    # place, so that a place alone tells nothing; or each channel standardised over the clip's patches, as in EAT
    loss: Literal["mse", "smooth_l1"] = "mse"  # average squared distance; open: smooth L1 as in I-JEPA's code
    ema: Ramp = field(default_factory=lambda: Ramp(0.996, 1.0, steps=100_000))  # teacher's decay; open: as in I-JEPA
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # its heads are open
    reconstruction: float = 0.0  # weight of our extra term: the targets' normalised pixels; 0 as published
    export: Literal["student", "teacher"] = "teacher"  # which encoder is saved, to be fine-tuned; open: as in I-JEPA

    def __post_init__(self) -> None:
        check_decay(self.ema)


@dataclass(frozen=True)
class Passed:
    """One pass, before the loss.

    Attributes:
        guess: What was predicted.
        targets: What the teacher makes of the same patches, normalised; float32.
    """

    guess: Float[Tensor, "q j d"]
    targets: Float[Tensor, "q j d"]


class JEPA(Objective):
    """Latent prediction over any ViT; extra tokens of an encoder are not predicted.

    Args:
        encoder: The student; it is trained in place.
        cfg: Settings; the defaults are the paper's base run.
        gen: Source of the predictor's initial weights.

    `Loss.parts`: `context` (share of the grid that the student saw), `hard` (1 on a hard step), and signs of collapse:
    `target_std` (mean over channels of the std over all target patches), `target_cosine` (mean over pairs of them),
    `target_rank` (participation ratio of their covariance, as a share of the width), `skill` (1 - error over the error
    of the mean target: at 0 the predictor knows nothing of where it is asked).
    """

    finished: Tensor

    def __init__(self, encoder: ViT, cfg: JEPAConfig = JEPAConfig(), gen: Generator | None = None):
        super().__init__()
        if cfg.sampler == "unstructured":
            masking.some_hidden(cfg.keep)
            if cfg.contexts != 1:
                raise ConfigError(f'contexts={cfg.contexts}: sampler="unstructured" knows a single one.')
        if cfg.centre != "no" and cfg.target_view != "full":
            raise ConfigError(
                f'centre="{cfg.centre}": needs target_view="full", where every clip has a target at every place.'
            )
        self.cfg, self.student, self.teacher = cfg, encoder, ema_copy(encoder)
        for block in self.teacher.modules():
            if isinstance(block, Block):
                block.drop_path = 0.0  # the teacher keeps all its paths, also after train()
        self.predictor = Predictor(encoder.width, cfg.predictor, gen)
        self.pixels = PixelHead(encoder.width, encoder.patch, gen) if cfg.reconstruction else None
        self.register_buffer("finished", torch.zeros((), dtype=torch.long))  # steps; the curriculum resumes with them

    @property
    def encoder(self) -> nn.Module:
        return self.student if self.cfg.export == "student" else self.teacher

    def forward(self, batch: Batch, gen: Generator) -> Loss:
        spec, hard = self._spec(batch), self.cfg.curriculum.hard(int(self.finished))
        views = self.draw(len(spec), self.student.grid(spec.shape[2]), hard, gen)
        passed = self.passed(spec, views, gen)
        loss = self.losses(passed)
        total, parts = loss.total, dict(loss.parts)
        parts |= {"context": views.context.float().mean(), "hard": torch.tensor(float(hard))}
        if self.pixels is not None:
            error = self.pixel_error(self.pixels, passed, spec, views.targets)
            total, parts["pixels"] = total + self.cfg.reconstruction * error, error.detach()
        return Loss(total, parts)

    def _spec(self, batch: Batch) -> Float[Tensor, "b 1 t f"]:
        assert batch.spec is not None, "the front-end has not filled the batch"
        return batch.spec

    def draw(self, count: int, grid: tuple[int, int], hard: bool, gen: Generator) -> Views:
        """Contexts and targets of a batch; contexts are of unequal sizes, but for `ijepa_legacy`'s, which are cut."""
        cfg, kind = self.cfg, self.cfg.hard if hard else self.cfg.easy
        if cfg.sampler == "unstructured":
            seen = masking.random(count, grid, keep=cfg.keep, gen=gen)[:, None]
            return Views(seen, ~seen)
        shape: dict[str, Any] = {
            "targets": kind.targets,
            "contexts": cfg.contexts,
            "scale": kind.scale,
            "aspect": kind.aspect,
        }
        if cfg.sampler == "ijepa_legacy":
            least, step = 10 if cfg.min_keep is None else cfg.min_keep, int(self.finished)
            return masking.ijepa_legacy(count, grid, step=step, context=cfg.context, min_keep=least, gen=gen, **shape)
        small = kind.remove == "cross" and grid[0] * grid[1] < cfg.cross_from
        remove: Removal = "time" if small else kind.remove
        return masking.multi_block(
            count, grid, context=cfg.context, remove=remove, min_keep=cfg.min_keep, gen=gen, **shape
        )

    def passed(self, spec: Float[Tensor, "b 1 t f"], views: Views, gen: Generator | None = None) -> Passed:
        """Predictions and targets for given views (`gen` is for drop path alone)."""
        tokens, grid = self.student.tokens(spec)
        e, b = views.context.shape[1], len(spec)
        context = views.context.transpose(0, 1).flatten(0, 1)  # [e b, n]
        asked = self._rows(views.targets.flatten(0, 1), b, e)
        spare = masking.spare(context)  # the emptiest of 64 clips has a third of the mean: no cutting down to it
        seen = self.student.encode(tokens.repeat(e, 1, 1), context, gen=gen, spare=spare).patches
        guess = self.predictor(seen, context, asked, grid, spare)
        return Passed(guess, self._rows(self.targets(spec, views.targets), b, e))

    @staticmethod
    def _rows(x: Tensor, b: int, e: int) -> Tensor:
        """`[b m, ...]`, clip first, as `[m e b, ...]`: target first, the same for each context."""
        return x.unflatten(0, (b, -1)).transpose(0, 1)[:, None].expand(-1, e, *[-1] * x.ndim).flatten(0, 2)

    @torch.no_grad()
    def targets(self, spec: Float[Tensor, "b 1 t f"], blocks: Bool[Tensor, "b m n"]) -> Float[Tensor, "bm j d"]:
        """What the teacher makes of each target block; clip first, then target."""
        tokens, flat = self.teacher.tokens(spec)[0], blocks.flatten(0, 1)
        if self.cfg.target_view == "masked_only":
            return self._norm(self.teacher.encode(tokens, flat).patches)
        patches = self.teacher.encode(tokens).patches.float()
        if self.cfg.centre == "place":
            if len(patches) < 2:
                raise ConfigError('centre="place": of one clip alone nothing is left; raise batch_size.')
            patches = patches - patches.mean(0)
        if self.cfg.centre == "clip":
            patches = F.instance_norm(patches.mT).mT
        return masking.gather(self._norm(patches), flat)

    def _norm(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return F.layer_norm(x.float(), x.shape[-1:]) if self.cfg.normalise else x.float()

    def losses(self, passed: Passed) -> Loss:
        """The mean over rows, patches and channels, in float32."""
        measure = F.mse_loss if self.cfg.loss == "mse" else F.smooth_l1_loss
        total = measure(passed.guess.float(), passed.targets)
        return Loss(total, monitors(passed))

    def pixel_error(
        self, head: PixelHead, passed: Passed, spec: Float[Tensor, "b 1 t f"], blocks: Bool[Tensor, "b m n"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of the targets' normalised pixels, float32."""
        rows = len(passed.guess) // (blocks.shape[0] * blocks.shape[1])
        pixels = masking.gather(normalised_patches(spec, head.patch, self.student.cfg.step), blocks.flatten(0, 1))
        return F.mse_loss(head(passed.guess).float(), self._rows(pixels, len(spec), rows))

    @torch.no_grad()
    def preview(self, batch: Batch, gen: Generator) -> dict[str, Tensor]:
        """For pictures: `spec` [b, t, f], `visible` [b, t', f'] of the first context, and `guess` [b, t', f']: the
        predicted targets along their main component, elsewhere the mean."""
        spec = self._spec(batch)
        grid = self.student.grid(spec.shape[2])
        views = self.draw(len(spec), grid, self.cfg.curriculum.hard(int(self.finished)), gen)
        passed, asked = self.passed(spec, views), views.targets.transpose(0, 1)  # [m, b, n]
        values = along_main(passed.guess, passed.targets).unflatten(0, (len(asked), -1, len(spec)))[:, 0]  # [m, b, j]
        total = torch.zeros_like(asked, dtype=torch.float32).masked_scatter(asked, values).sum(0)
        times = asked.sum(0)
        guess = torch.where(times > 0, total / times.clamp_min(1), values.mean())
        return {
            "spec": spec[:, 0],
            "visible": views.context[:, 0].unflatten(1, grid),
            "guess": guess.unflatten(1, grid),
        }

    def after_step(self, step: int) -> None:
        ema_update(self.teacher, self.student, decay=self.cfg.ema(step - 1))  # as I-JEPA counts
        self.finished.fill_(step)


@torch.no_grad()
def monitors(passed: Passed) -> dict[str, Tensor]:
    """How alike the targets are, and how much more than their mean the predictor knows."""
    x, guess = passed.targets.flatten(0, 1), passed.guess.float().flatten(0, 1)
    centred = x - x.mean(0)
    variance = centred.square().mean()
    # of at most 1024 patches: tr(C)^2 / tr(C C) is the same for the Gram matrix
    few = centred[:: -(-len(x) // 1024)]
    gram = few @ few.T
    rank = gram.diagonal().sum().square() / gram.square().sum().clamp_min(1e-20)
    return {
        "target_std": centred.square().mean(0).sqrt().mean(),
        "target_cosine": F.normalize(x, dim=-1).mean(0).square().sum(),
        "target_rank": rank / x.shape[1],
        "skill": 1 - (guess - x).square().mean() / variance.clamp_min(1e-20),
    }
