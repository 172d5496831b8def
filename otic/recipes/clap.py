"""CLAP: MS-CLAP 2023 and LAION-CLAP as their papers describe them (arXiv 2309.05767, 2211.06687), and runs of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.audio.frontend import htsat
from otic.engine.config import TrainConfig
from otic.engine.plateau import PlateauConfig
from otic.inference.options import Options
from otic.models.htsat import HTSATConfig
from otic.models.text import TextConfig
from otic.models.two_tower import ReaderConfig, TwoTowerConfig
from otic.models.vit import ViTConfig
from otic.objectives.clap import CLAPConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny

MS_PAIRS = 4_600_000  # of audio and text (paper)
LAION_PAIRS = 633_526  # of LAION-Audio-630K
ROBERTA = TextConfig(
    kind="roberta", vocab=50265, positions=514, pool="pooler", end=2, pad=1, types=1, tanh_gelu=False
)  # base size
SMALL_TEXT = TextConfig(vocab=0, positions=77, width=192, depth=3, heads=3, pool="mean")


@RECIPES.add
def msclap_2023() -> Recipe:
    """MS-CLAP 2023: HTSAT and GPT-2 learn together, 40 epochs of 4.6 M pairs in batches of 1536.

        otic pretrain msclap_2023 --data captioned/ --out runs/msclap --set objective.language=gpt2/ \\
            --init runs/caption

    `gpt2/` holds GPT-2's published weights and vocabulary; `runs/caption` an audio tower that learned to answer in
    words first (`caption_base`; the paper's HTSAT-22). Random crops of seven seconds, shorter clips repeated. From the
    paper: batch, epochs, Adam, its learning rate, divided by ten when learning rests for 15 epochs. It is silent on
    Adam's betas, warm-up and clipping (PyTorch's betas, none, none), on whether the scale is clamped (it is, at 100, as
    in the 2022 paper), and on what rests (the loss of two batches held out). It keeps the checkpoint that is best at 26
    tasks without training; here the last one counts.

    Compute: not measured; the 2022 paper's took 8 to 24 V100. Score: not reproduced; there is no list of the pairs.
    """
    return Recipe(
        name="msclap_2023",
        method="clap",
        objective=CLAPConfig(towers=TwoTowerConfig(), same="negatives"),
        encoder=HTSATConfig(classes=0),
        frontend=htsat(),
        crop_seconds=7.0,
        short="repeat",
        frames=0,
        batch_size=1536,
        train=TrainConfig(
            steps=40 * MS_PAIRS // 1536, warmup=0, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, clip=0.0,
            schedule="plateau", log_every=10, save_minutes=15.0,
            plateau=PlateauConfig(every=MS_PAIRS // 1536, patience=15, factor=0.1, clips=2 * 1536),
        ),
        inference=Options(window=7.0, short="repeat"),
    )  # fmt: skip


@RECIPES.add
def laion_clap() -> Recipe:
    """LAION-CLAP without fusion: HTSAT and RoBERTa learn together, 45 epochs in batches of 2304.

        otic pretrain laion_clap --data captioned/ --out runs/laion --set objective.language=FacebookAI/roberta-base

    Its script's batch, epochs, learning rate, warm-up and cosine; the epochs count LAION-Audio-630K alone, so name
    `--epochs 45` where AudioCaps, Clotho or AudioSet are added. Of its two scales the second serves only its optional
    loss, so there is one. Script: normalisation synchronised between processes, clips shorter than ten seconds repeated
    as often as they fit whole; here each process has its own, and the last repetition is cut. The published run began
    with an audio tower trained on AudioSet at 48 kHz (`--init`).

    Compute: not measured; the script ran on 24 GPUs. Score: not reproduced.
    """
    return Recipe(
        name="laion_clap",
        method="clap",
        objective=CLAPConfig(towers=TwoTowerConfig(text=ROBERTA, dim=512, head="mlp"), same="negatives"),
        encoder=HTSATConfig(classes=0),
        frontend=htsat(sample_rate=48000, mel_rate=None, hop=480, quantise=True),
        crop_seconds=10.0,
        short="repeat",
        frames=0,
        batch_size=2304,
        train=TrainConfig(
            steps=45 * LAION_PAIRS // 2304, warmup=3200, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, clip=0.0,
            log_every=10, save_minutes=15.0,
        ),
        inference=Options(window=10.0, short="repeat"),
    )  # fmt: skip


@RECIPES.add
def clap_base() -> Recipe:
    """Any base encoder of ours and GPT-2, which learn together; ours, not published.

        otic pretrain clap_base --init runs/eat_base --data captioned/ --out runs/words --set objective.language=gpt2/

    MS-CLAP's heads and loss around a ViT-B that has learned from sound alone, with the rate of fine-tuning.

    Compute: not measured yet. Score: not measured yet.
    """
    return Recipe(
        name="clap_base",
        method="clap",
        objective=CLAPConfig(towers=TwoTowerConfig()),
        encoder=ViTConfig(),
        adopt=True,
        crop_seconds=10.0,
        frames=0,
        batch_size=512,
        train=TrainConfig(
            steps=40_000, warmup=2000, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05, decay="intended", clip=1.0,
            log_every=10, save_minutes=15.0,
        ),
        inference=Options(window=10.0),
    )  # fmt: skip


@RECIPES.add
def clap_small() -> Recipe:
    """Sound and words for one GPU: any encoder of ours, a text tower of 11 M parameters from scratch; ours.

        otic pretrain clap_small --init runs/eat_small --data captioned/ --out runs/words

    Compute: not measured yet. Score: not measured yet.
    """
    text = TextConfig(vocab=0, positions=77, width=384, depth=6, heads=6, pool="mean")
    reader = ReaderConfig(width=384, depth=2, heads=6)
    towers = TwoTowerConfig(text=text, dim=512, dropout=0.1, pool="series", reader=reader)
    recipe = small("clap_small", "clap", CLAPConfig(towers=towers, vocabulary=8192))
    train = TrainConfig(steps=20_000, warmup=1000, lr=3e-4, decay="intended", weight_decay=0.1, clip=1.0, log_every=10)
    return replace(recipe, crop_seconds=10.0, frames=0, batch_size=256, train=train, adopt=True)


@RECIPES.add
def clap_tiny() -> Recipe:
    """Sound and words for a laptop: an encoder of ours stays as it is, all else is learned in minutes; ours.

        otic pretrain clap_tiny --init runs/tiny --data ../shared/data/esc10_scenes --out runs/words

    The encoder is heard once for each clip; a small transformer reads its frames in order, and a decoder-only text
    tower with its byte-level BPE is trained from nothing on the captions alone.

    Compute: ten minutes on one core. Score: around an hour of `eat_tiny`, text to audio on 400 unheard scenes R@1 87.1
    and R@10 98.9 % (the encoder untrained: 44.4 and 95.2; both towers untrained: 1.4 and 9.0), ESC-10 by the names of
    its classes 75.0 % (45.0; 10.0); more in docs/log.md.
    """
    towers = TwoTowerConfig(text=SMALL_TEXT, dim=256, dropout=0.1, pool="series")
    recipe = tiny("clap_tiny", "clap", CLAPConfig(towers=towers, vocabulary=1024, freeze_audio=True, remember=True))
    train = TrainConfig(steps=1500, warmup=75, lr=1e-3, clip=1.0, decay="intended", weight_decay=0.1, save_minutes=2.0)
    return replace(
        recipe, crop_seconds=10.0, crops_per="clip", short="pad", frames=0, batch_size=64, train=train, adopt=True
    )
