"""SSAST (arXiv 2110.09784): its published patch and frame runs, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.audio.frontend import FrontendConfig
from otic.engine.config import TrainConfig
from otic.engine.plateau import PlateauConfig
from otic.inference.options import Options
from otic.models.vit import ViTConfig
from otic.objectives.mspm import MSPMConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny

PATCH = ViTConfig(norm="pre", dist=True, positions="learned", table=(64, 8), patch_init="default")
FRAME = replace(PATCH, patch=(2, 128), table=(512, 1))


def _published(name: str, encoder: ViTConfig) -> Recipe:
    return Recipe(
        name=name,
        method="mspm",
        objective=MSPMConfig(),
        encoder=encoder,
        frontend=FrontendConfig(mean=-4.2677393, std=4.5689974),
        crop_seconds=10.255,  # 1024 frames; upstream takes a clip's first ones, here they begin anywhere
        batch_size=24,
        train=TrainConfig(
            steps=900_000,  # 10 epochs of 2.2 M clips, upstream's upper bound; how long the runs were is not published
            warmup=1000,
            stair=50,  # so the first 50 steps have a rate of zero
            lr=1e-4,
            schedule="plateau",
            plateau=PlateauConfig(watch="accuracy", better="higher", every=4000, patience=2, factor=0.5),
            adam="l2",
            betas=(0.95, 0.999),
            weight_decay=5e-7,
            clip=0.0,
            log_every=10,
            save_minutes=15.0,
        ),
        inference=Options(window=10.24),
    )


@RECIPES.add
def ssast_patch_base() -> Recipe:
    """SSAST base with 16x16 patches as published (arXiv 2110.09784): 89 M parameters, batches of 24 ten-second clips.

        otic pretrain ssast_patch_base --data audioset_librispeech.csv --out runs/ssast_patch

    As upstream, the rate rises in steps of 50 updates and is halved at the third check in a row, 4000 updates apart,
    at which the accuracy on unseen clips is no better; upstream's are AudioSet's evaluation set, ours 512 clips held
    out, their masks the same each time. The length of its runs is not published. Compute: four GTX Titan X for about
    10 days, as quoted from the paper.
    Score: the paper reports, fine-tuned, 31.0 mAP on AudioSet-20K, and accuracies of 88.8 % on ESC-50, 98.0 on Speech
    Commands V2, 96.0 on V1, 64.3 on VoxCeleb1 and 59.6 on IEMOCAP.
    """
    return _published("ssast_patch_base", PATCH)


@RECIPES.add
def ssast_frame_base() -> Recipe:
    """SSAST base with 128x2 patches, whole frames, as published (arXiv 2110.09784): otherwise `ssast_patch_base`.

        otic pretrain ssast_frame_base --data audioset_librispeech.csv --out runs/ssast_frame

    Compute: as `ssast_patch_base`. Score: fine-tuned, on average 57.6 over AudioSet-20K and ESC-50, 84.0 over the four
    speech tasks (the repository's README).
    """
    return _published("ssast_frame_base", FRAME)


OURS = MSPMConfig(hidden=400 / 512, sampler="balanced", passes="shared")  # the published share, at half the cost


@RECIPES.add
def ssast_patch_small() -> Recipe:
    """SSAST at a quarter of the base width's cost, for one GPU and tens of thousands of clips; ours, not published.

        otic pretrain ssast_patch_small --data sounds/ --out runs/ssast_patch_small

    Compute: not measured yet. Score: not measured yet.
    """
    return small("ssast_patch_small", "mspm", OURS)


@RECIPES.add
def ssast_frame_small() -> Recipe:
    """As `ssast_patch_small` with 128x2 patches, whole frames; ours, not published.

        otic pretrain ssast_frame_small --data sounds/ --out runs/ssast_frame_small

    Compute: not measured yet. Score: not measured yet.
    """
    return small("ssast_frame_small", "mspm", replace(OURS, sampler="random"), patch=(2, 128))


@RECIPES.add
def ssast_patch_tiny() -> Recipe:
    """SSAST for a laptop: 2.8 M parameters, two-second crops, one mask for both terms; ours, not published.

        otic pretrain ssast_patch_tiny --data sounds/ --out runs/ssast_tiny --minutes 60

    Half of the patches are hidden: the paper finds 250 of 512 almost as good as 400 (30.4 and 31.0 mAP on
    AudioSet-20K), and so small a network learns sooner with more to see. Compute and score: docs/bakeoff.md.
    """
    return tiny("ssast_patch_tiny", "mspm", replace(OURS, hidden=0.5), init="xavier")


@RECIPES.add
def ssast_frame_tiny() -> Recipe:
    """As `ssast_patch_tiny` with 128x2 patches, whole frames: 104 of them; ours, not published.

        otic pretrain ssast_frame_tiny --data sounds/ --out runs/ssast_frame_tiny --minutes 60

    The encoder sees the visible quarter alone and a small decoder the rest (`visible_only`): as good after as many
    updates, at 60 % of the arithmetic. Read by the mean of its last layer, as the paper does, a linear probe on
    rendered sounds rises from 31 to 37 % in 200 updates. Read as all tiny recipes are, by means and deviations of
    three layers, it stays at 67: random weights hand whole spectra on; Xavier's make it worse (docs/log.md).
    Compute: not measured yet. Score of a full run: not measured yet.
    """
    seen = replace(OURS, hidden=0.75, sampler="random", visible_only=True)
    recipe = tiny("ssast_frame_tiny", "mspm", seen, patch=(2, 128))
    return replace(recipe, train=replace(recipe.train, lr=1e-3))
