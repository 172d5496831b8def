"""Published checkpoints by name: what they are, where they lie, what they cost in labels, what their authors report.

Sources: the EAT repository (cwx-worst-one/EAT) and its Hugging Face repositories; scores from arXiv 2401.03497 and from
the repository's README. Audio-MAE: facebookresearch/AudioMAE, scores of the local decoder from arXiv 2207.06405; what
lies on the hub are ports of its files to timm, whose encoder has the same names. A download is never needed to read
this table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from otic.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published checkpoint."""

    name: str  # what `otic.load` takes
    system: str  # the paper's name for it
    architecture: str  # in words
    parameters: int  # of the encoder, without fixed tables and without heads
    repository: str  # on the Hugging Face hub; empty where the authors only share the file by other means
    file: str  # its name there
    licence: str  # as the authors state it
    sha256: str = ""  # of the file; empty where nobody published it
    trained_on: str = ""  # data of the (pre-)training
    labels_used: str = "none"  # which human labels it has seen
    paper: str = ""
    page: str = ""  # where to get it by hand
    scores: dict[str, float] = field(default_factory=dict)  # after the authors' fine-tuning, fractions


CATALOGUE: Registry[Entry] = Registry("model")

_BASE = "ViT-B/16 with post-norm blocks: 12 layers, 768 wide, 12 heads; 128-bin log-mel at 16 kHz"
_LARGE = "ViT-L/16 with post-norm blocks: 24 layers, 1024 wide, 16 heads; 128-bin log-mel at 16 kHz"
_PAPER = "Chen et al. 2024, EAT: Self-Supervised Pre-Training with Efficient Audio Transformer, arXiv 2401.03497"


def _eat(
    name: str, size: str, repository: str, *, epochs: int, tuned: str = "", sha256: str = "", **scores: float
) -> None:
    CATALOGUE[name] = Entry(
        name=name,
        system="EAT",
        architecture=_BASE if size == "base" else _LARGE,
        parameters=85_254_144 if size == "base" else 302_575_616,
        repository=repository,
        file="model.safetensors" if repository else "",
        licence="MIT",
        sha256=sha256,
        trained_on=f"AudioSet-2M, {epochs} epochs, without labels" + (f"; fine-tuned on {tuned}" if tuned else ""),
        labels_used=f"{tuned} (527 classes)" if tuned else "none",
        paper=_PAPER,
        page=f"hf.co/{repository}" if repository else "github.com/cwx-worst-one/EAT",
        scores=scores,
    )


_eat("eat-base-10ep", "base", "", epochs=10, as2m_mAP=0.486, as20k_mAP=0.402, esc50_accuracy=0.959, spc2_accuracy=0.983)
_eat(
    "eat-base-30ep",
    "base",
    "worstchan/EAT-base_epoch30_pretrain",
    epochs=30,
    sha256="8623072d09aac4f3ad1168b4fed3a24e4f68fe1da25b9fe733375efb237e5f48",
    as2m_mAP=0.489,
    as20k_mAP=0.413,
)
_eat(
    "eat-base-30ep-as2m",
    "base",
    "worstchan/EAT-base_epoch30_finetune_AS2M",
    epochs=30,
    tuned="AudioSet-2M",
    as2m_mAP=0.489,
)
_eat("eat-large-20ep", "large", "worstchan/EAT-large_epoch20_pretrain", epochs=20, as2m_mAP=0.495, as20k_mAP=0.420)
_eat(
    "eat-large-20ep-as2m",
    "large",
    "worstchan/EAT-large_epoch20_finetune_AS2M",
    epochs=20,
    tuned="AudioSet-2M",
    as2m_mAP=0.495,
)

_MAE = "ViT-B/16 with pre-norm blocks: 12 layers, 768 wide, 12 heads; 128-bin log-mel at 16 kHz"


def _audiomae(name: str, parameters: int, repository: str, *, tuned: str = "", **scores: float) -> None:
    CATALOGUE[name] = Entry(
        name=name,
        system="Audio-MAE",
        architecture=_MAE,
        parameters=parameters,
        repository=repository,
        file="pytorch_model.bin" if repository else "",
        licence="CC-BY-4.0",
        trained_on="AudioSet-2M, 32 epochs, without labels" + (f"; fine-tuned on {tuned}" if tuned else ""),
        labels_used=f"{tuned} (527 classes)" if tuned else "none",
        paper="Huang et al. 2022, Masked Autoencoders that Listen, arXiv 2207.06405",
        page=f"hf.co/{repository}" if repository else "github.com/facebookresearch/AudioMAE",
        scores=scores,
    )


_audiomae(
    "audiomae-base",
    85_254_144,
    "gaunernst/vit_base_patch16_1024_128.audiomae_as2m",
    as2m_mAP=0.473,
    as20k_mAP=0.370,
    esc50_accuracy=0.941,
    spc2_accuracy=0.983,
    spc1_accuracy=0.969,
    sid_accuracy=0.948,
)
_audiomae("audiomae-base-as2m", 85_252_608, "", tuned="AudioSet-2M", as2m_mAP=0.473)  # no final norm in the encoder
_audiomae(
    "audiomae-base-as20k",
    85_252_608,
    "gaunernst/vit_base_patch16_1024_128.audiomae_as2m_ft_as20k",
    tuned="AudioSet-20K",
    as20k_mAP=0.370,
)
