"""Published checkpoints by name: what they are, where they lie, what they cost in labels, what their authors report.

Sources: the EAT repository (cwx-worst-one/EAT) and its Hugging Face repositories; scores from arXiv 2401.03497 and from
the repository's README. Audio-MAE: facebookresearch/AudioMAE, scores of the local decoder from arXiv 2207.06405; what
lies on the hub are ports of its files to timm, whose encoder has the same names. MS-CLAP: arXiv 2309.05767 (table 2)
and 2206.04769. LAION-CLAP: its repository's README, except retrieval, which is from WavLink's table 2 (IEEE 2026). A
download is never needed to read this table.
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
    scores: dict[str, float] = field(default_factory=dict)  # after the authors' fine-tuning, or zero_shot_*; fractions
    note: str = ""  # what a user should know before trusting it


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


_SSAST = "ViT-{}/{} with pre-norm blocks: 12 layers, {} wide, {} heads, two extra tokens; 128-bin log-mel at 16 kHz"
_SIZES = {  # size -> letter, width, heads, parameters of the encoder
    "base": ("B", 768, 12, 85_649_664),
    "small": ("S", 384, 6, 21_591_168),
    "tiny": ("Ti", 192, 3, 5_487_168),
}


def _ssast(size: str, kind: str, hidden: int, repository: str = "", **scores: float) -> None:
    letter, width, heads, parameters = _SIZES[size]
    name = f"ssast-{size}-{kind}-{hidden}"
    CATALOGUE[name] = Entry(
        name=name,
        system="SSAST",
        architecture=_SSAST.format(letter, "16" if kind == "patch" else "2 frames", width, heads),
        parameters=parameters,
        repository=repository,
        file="model.safetensors" if repository else "",
        licence="BSD-3-Clause",
        trained_on=f"AudioSet-2M and LibriSpeech-960, {hidden} of 512 patches hidden, without labels",
        paper="Gong et al. 2022, SSAST: Self-Supervised Audio Spectrogram Transformer, arXiv 2110.09784",
        page=f"hf.co/{repository}" if repository else "github.com/YuanGongND/ssast",
        scores=scores,
    )


# Means over AudioSet-20K (mAP) and ESC-50, and over Speech Commands V2 and V1, VoxCeleb1 and IEMOCAP (the README's).
_ssast(
    "base", "patch", 400,
    as20k_mAP=0.310, esc50_accuracy=0.888, spc2_accuracy=0.980, spc1_accuracy=0.960, sid_accuracy=0.643,
    er_accuracy=0.596, audio_mean=0.599, speech_mean=0.795,
)  # fmt: skip
_ssast("base", "frame", 400, audio_mean=0.576, speech_mean=0.840)
_ssast(
    "base", "patch", 250,
    as20k_mAP=0.304, esc50_accuracy=0.867, spc2_accuracy=0.981, spc1_accuracy=0.962, sid_accuracy=0.666,
    er_accuracy=0.571, audio_mean=0.586, speech_mean=0.795,
)  # fmt: skip
_ssast("base", "frame", 250, audio_mean=0.556, speech_mean=0.816)
_ssast("small", "patch", 400, "Simon-Kotchou/ssast-small-patch-audioset-16-16", audio_mean=0.581, speech_mean=0.782)
_ssast("tiny", "patch", 400, "Simon-Kotchou/ssast-tiny-patch-audioset-16-16", audio_mean=0.533, speech_mean=0.757)
_ssast("tiny", "frame", 400, audio_mean=0.478)


def _ast(
    name: str, repository: str, tuned: str, positions: int, file: str = "model.safetensors", **scores: float
) -> None:
    CATALOGUE[name] = Entry(
        name=name,
        system="AST",
        architecture=_SSAST.format("B", "16", 768, 12),
        parameters=85_649_664 + (positions - 514) * 768,
        repository=repository,
        file=file,
        licence="BSD-3-Clause",
        trained_on=f"ImageNet with labels; fine-tuned on {tuned}",
        labels_used=f"ImageNet, and {tuned}",
        paper="Gong et al. 2021, AST: Audio Spectrogram Transformer, arXiv 2104.01778",
        page=f"hf.co/{repository}",
        scores=scores,
    )


_AS2M, _PORT = "AudioSet-2M (527 classes)", "MIT/ast-finetuned-audioset-"
_ast("ast-as2m-10-10", _PORT + "10-10-0.4593", _AS2M, 1214, as2m_mAP=0.4593)  # the numbers are the strides
_ast("ast-as2m-12-12", _PORT + "12-12-0.447", _AS2M, 852, "pytorch_model.bin", as2m_mAP=0.4467)
_ast("ast-as2m-14-14", _PORT + "14-14-0.443", _AS2M, 659, as2m_mAP=0.4431)
_ast("ast-as2m-16-16", _PORT + "16-16-0.442", _AS2M, 514, as2m_mAP=0.4422)
_SPC2 = "Speech Commands V2 (35 classes)"
_ast("ast-spc2-10-10", "MIT/ast-finetuned-speech-commands-v2", _SPC2, 146, spc2_accuracy=0.9812)

_HTSAT = "HTSAT-{} with {}; {} kHz, windows of {} s"


def _clap(
    name: str,
    system: str,
    architecture: str,
    parameters: int,
    repository: str,
    file: str,
    licence: str,
    trained_on: str,
    paper: str,
    *,
    labels_used: str,
    note: str = "",
    **scores: float,
) -> None:
    CATALOGUE[name] = Entry(
        name=name,
        system=system,
        architecture=architecture,
        parameters=parameters,
        repository=repository,
        file=file,
        licence=licence,
        trained_on=trained_on,
        labels_used=labels_used,
        paper=paper,
        page=f"hf.co/{repository}",
        scores=scores,
        note=note,
    )


_MS = "microsoft/msclap"
_MS_2023 = (
    "Elizalde et al. 2023, Natural Language Supervision for General-Purpose Audio Representations, arXiv 2309.05767"
)
_MS_2022 = "Elizalde et al. 2022, CLAP: Learning Audio Concepts From Natural Language Supervision, arXiv 2206.04769"
_BAND = "Its mel filters were built for 32 kHz and see 44.1 kHz: they hear 69-19294 Hz, not the paper's 50-8000."
_clap(
    "msclap-2023", "MS-CLAP 2023", _HTSAT.format("tiny", "GPT-2 small, joint width 1024", 44.1, 7), 27_534_488,
    _MS, "CLAP_weights_2023.pth", "MIT (the code)", "4.6 M pairs of sound and caption, after 22 audio tasks", _MS_2023,
    labels_used="those of 22 audio tasks, and captions",
    note=f"{_BAND} A third party measured 0.8775 on ESC-50 with these weights.",
    zero_shot_esc50_accuracy=0.939, zero_shot_us8k_accuracy=0.823, zero_shot_fsd50k_mAP=0.485,
    zero_shot_audioset_mAP=0.102, zero_shot_gtzan_accuracy=0.584, zero_shot_crema_d_accuracy=0.300,
    zero_shot_vocalsound_accuracy=0.800, zero_shot_spc_accuracy=0.164, esc50_accuracy=0.9825,
    audiocaps_text_to_audio_R1=0.356, audiocaps_audio_to_text_R1=0.425,
    clotho_text_to_audio_R1=0.157, clotho_audio_to_text_R1=0.229,
)  # fmt: skip
_clap(
    "msclap-2022", "MS-CLAP 2022", "Cnn14 with BERT-base, joint width 1024; 44.1 kHz, windows of 5 s", 79_673_792,
    _MS, "CLAP_weights_2022.pth", "MIT (the code)", "128,010 pairs of sound and caption", _MS_2022,
    labels_used="AudioSet (at the start of its audio tower), and captions",
    zero_shot_esc50_accuracy=0.826, zero_shot_us8k_accuracy=0.732, zero_shot_fsd50k_mAP=0.302,
    zero_shot_gtzan_accuracy=0.252, zero_shot_crema_d_accuracy=0.178, zero_shot_vocalsound_accuracy=0.495,
    zero_shot_spc_accuracy=0.106, esc50_accuracy=0.967, us8k_accuracy=0.880, fsd50k_mAP=0.586,
)  # fmt: skip
_clap(
    "clapcap", "MS-CLAP 2023, captioner", _HTSAT.format("tiny", "GPT-2 captioner", 44.1, 7), 27_534_488,
    _MS, "clapcap_weights_2023.pth", "MIT (the code)", "as msclap-2023; its captioner on AudioCaps or Clotho", _MS_2023,
    labels_used="those of 22 audio tasks, and captions",
    note=f"{_BAND} Its audio encoder alone is read.",
    audiocaps_SPIDEr=0.455, clotho_SPIDEr=0.271,
)  # fmt: skip

_WU = "Wu et al. 2022, Large-scale Contrastive Language-Audio Pretraining (LAION-CLAP), arXiv 2211.06687"
_LAION = "lukewys/laion_clap"
_ROBERTA = "RoBERTa-base, joint width 512"


def _laion(
    name: str, file: str, data: str, *, size: str = "tiny", fused: bool = False, note: str = "", **scores: float
) -> None:
    parameters = {"tiny": 27_549_128 if fused else 27_534_488, "base": 67_824_408}[size]
    words = f"{_ROBERTA}{', long clips fused' if fused else ''}"
    port = "/" in file
    _clap(
        name, "LAION-CLAP", _HTSAT.format(size, words, 48, 10), parameters,
        file if port else _LAION, "pytorch_model.bin" if port else file,
        "Apache-2.0 (the port)" if port else "CC0 (the code)", data, _WU,
        labels_used="AudioSet (at the start of its audio tower), and captions", note=note, **scores,
    )  # fmt: skip


_630K, _PLUS = "LAION-Audio-630K, AudioCaps, Clotho", ", AudioSet with made captions"
_laion("laion-clap-630k", "630k-best.pt", _630K,
       zero_shot_esc50_accuracy=0.891, zero_shot_us8k_accuracy=0.732, zero_shot_vggsound_accuracy=0.291)  # fmt: skip
_laion(
    "laion-clap-630k-audioset", "630k-audioset-best.pt", _630K + _PLUS,
    zero_shot_esc50_accuracy=0.910, zero_shot_us8k_accuracy=0.770, zero_shot_vggsound_accuracy=0.462,
    zero_shot_esc50_fold1_accuracy=0.9275,
    audiocaps_text_to_audio_R1=0.361, audiocaps_audio_to_text_R1=0.468,
    clotho_text_to_audio_R1=0.161, clotho_audio_to_text_R1=0.227,
)  # fmt: skip
_laion("laion-clap-630k-fusion", "630k-fusion-best.pt", _630K, fused=True)
_laion("laion-clap-630k-audioset-fusion", "630k-audioset-fusion-best.pt", _630K + _PLUS, fused=True,
       zero_shot_esc50_fold1_accuracy=0.9050)  # fmt: skip
_MUSIC, _SPEECH = "music", "music and speech"
_laion("laion-clap-music-audioset", "music_audioset_epoch_15_esc_90.14.pt", f"{_MUSIC}, {_630K}{_PLUS}", size="base",
       zero_shot_esc50_accuracy=0.9014, zero_shot_gtzan_accuracy=0.71)  # fmt: skip
_laion("laion-clap-music-speech-audioset", "music_speech_audioset_epoch_15_esc_89.98.pt",
       f"{_SPEECH}, {_630K}{_PLUS}", size="base",
       zero_shot_esc50_accuracy=0.8998, zero_shot_gtzan_accuracy=0.51)  # fmt: skip
_laion("laion-clap-music-speech", "music_speech_epoch_15_esc_89.25.pt", f"{_SPEECH}, {_630K}", size="base",
       zero_shot_esc50_accuracy=0.8925, zero_shot_gtzan_accuracy=0.69)  # fmt: skip
_laion("clap-htsat-unfused", "laion/clap-htsat-unfused", _630K + _PLUS)
_laion("clap-htsat-fused", "laion/clap-htsat-fused", _630K + _PLUS, fused=True)
_laion("larger-clap-general", "laion/larger_clap_general", f"{_SPEECH}, {_630K}{_PLUS}", size="base")
_laion("larger-clap-music", "laion/larger_clap_music", f"{_MUSIC}, {_630K}", size="base",
       note="Its text tower has collapsed: two texts have a mean cosine of 0.9993 (mteb, issue 5069).")  # fmt: skip
_laion("larger-clap-music-and-speech", "laion/larger_clap_music_and_speech", f"{_SPEECH}, {_630K}", size="base")
