"""Captions: retrieval both ways, and captioning, which is listed but needs a trained captioner."""

from __future__ import annotations

from otic.evaluation.tasks import sets
from otic.evaluation.tasks.task import BenchTask

SORTED = "Published mAP@10 may be the unsorted one: compare it with audio_to_text_mAP@10_upstream too."
PEER = "The published models trained on its training part."


def _way(way: str, first: float, tenth: float) -> dict[str, float]:
    return {f"{way}_R@1": first, f"{way}_mAP@10": tenth}


def _recall(way: str, *values: float) -> dict[str, float]:
    return {f"{way}_R@{k}": value for k, value in zip((1, 5, 10), values)}


CAPTIONS = (
    BenchTask(
        name="AudioCaps captioning",
        data=sets.AUDIOCAPS,
        protocol="captioning",
        published={"msclap26": {"SPIDEr": 0.455}},
        scored="test set",
        clips=975,
        note="The paper trains a mapper onto a language model for it.",
    ),
    BenchTask(
        name="Clotho captioning",
        data=sets.CLOTHO,
        protocol="captioning",
        published={"msclap26": {"SPIDEr": 0.271}},
        scored="evaluation set",
        clips=1045,
        note="The paper trains a mapper onto a language model for it.",
    ),
    BenchTask(
        name="AudioCaps audio to text",
        data=sets.AUDIOCAPS,
        protocol="retrieval",
        published={
            "msclap26": _way("audio_to_text", 0.425, 0.319),
            "laion": _recall("audio_to_text", 0.468, 0.829, 0.907),
        },
        scored="test set, five captions a clip",
        clips=975,
        note=f"{PEER} {SORTED}",
    ),
    BenchTask(
        name="Clotho audio to text",
        data=sets.CLOTHO,
        protocol="retrieval",
        published={
            "msclap26": _way("audio_to_text", 0.229, 0.155),
            "laion": _recall("audio_to_text", 0.227, 0.485, 0.608),
        },
        scored="evaluation set, five captions a clip",
        clips=1045,
        note=f"{PEER} {SORTED}",
    ),
    BenchTask(
        name="AudioCaps text to audio",
        data=sets.AUDIOCAPS,
        protocol="retrieval",
        published={
            "msclap26": _way("text_to_audio", 0.356, 0.51),
            "laion": _recall("text_to_audio", 0.361, 0.718, 0.839),
        },
        scored="test set, each caption a query",
        clips=975,
        note=PEER,
    ),
    BenchTask(
        name="Clotho text to audio",
        data=sets.CLOTHO,
        protocol="retrieval",
        published={
            "msclap26": _way("text_to_audio", 0.157, 0.257),
            "laion": _recall("text_to_audio", 0.161, 0.383, 0.511),
        },
        scored="evaluation set, each caption a query",
        clips=1045,
        note=PEER,
    ),
)
