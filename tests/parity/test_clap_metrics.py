"""Retrieval and average precision against LAION-CLAP's own evaluation functions, every key of the stored file."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from otic.evaluation import retrieval
from otic.evaluation.metrics import average_precision, mean_average_precision

SORTED = "_with_ranks_sorted"


@pytest.fixture(scope="module")
def stored(golden):
    folder = golden("clap")
    found = sorted(folder.glob("metrics*.json"))
    assert found, f"{folder} lacks metrics.json"
    return [(json.loads(p.read_text()), load_file(p.with_name(f"{p.stem}_inputs.safetensors"))) for p in found]


def blocks(stored):
    """(name, expected, audio, text, captions per clip, scale) of every retrieval block found."""
    count = 0
    for values, tensors in stored:
        for name, expected in values.items():
            if isinstance(expected, dict):
                text = tensors[f"text_{name.split('_')[0]}"]
                yield name, expected, tensors["audio"], text, len(text) // len(tensors["audio"]), values["logit_scale"]
                count += 1
    assert count


def contrastive(audio, text, per, scale):
    """The symmetric loss, its mean over the captions of each clip."""
    right = torch.arange(len(audio))
    parts = [scale * audio @ text[j::per].T for j in range(per)]
    return sum((F.cross_entropy(x, right) + F.cross_entropy(x.T, right)) / 2 for x in parts) / per


def ours(audio, text, per):
    asked = retrieval.Captioned(
        captions=("",) * len(text),
        owner=np.repeat(np.arange(len(audio)), per),
        meaning=np.arange(len(audio)),
        by="row",
    )
    found = retrieval.both_ways(audio.numpy(), text.numpy(), asked)
    once = np.ones((1, len(audio)))
    return {name: float(of(once)[0]) for name, of in retrieval.statistics(found, asked.owner).items()}


def test_every_retrieval_number(stored):
    for name, expected, audio, text, per, scale in blocks(stored):
        got = ours(audio, text, per)
        for key, want in expected.items():
            if key == "num_samples":
                value = len(audio)
            elif key == "cumulative_loss":
                value = float(contrastive(audio, text, per, scale))
            elif key.endswith(SORTED):
                value = got[key.removesuffix(SORTED)]
            elif f"{key}_upstream" in got:  # with several captions: upstream's value, ranks in the order of the file
                value = got[f"{key}_upstream"]
            else:
                value = got[key]
            assert value == pytest.approx(want, abs=1e-6, rel=1e-6), f"{name}: {key}"


def test_unsorted_ranks_flatter(stored):
    """What upstream reports is never below the true value."""
    for *_, audio, text, per, _ in blocks(stored):
        if per > 1:
            got = ours(audio, text, per)
            assert got["audio_to_text_mAP@10_upstream"] >= got["audio_to_text_mAP@10"]


def test_average_precision(stored):
    count = 0
    for values, tensors in stored:
        if "ap_score" not in tensors:
            continue
        score, target = tensors["ap_score"].double().numpy(), tensors["ap_target"].numpy()
        once = np.ones((1, len(score)))
        for k, want in enumerate(values["average_precision_per_class"]):
            got = average_precision(score[:, k], target[:, k], once)[0]
            assert got == pytest.approx(want, abs=1e-6), f"average precision of class {k}"
        assert mean_average_precision(score, target, once)[0] == pytest.approx(values["mAP"], abs=1e-6), "mAP"
        count += 1
    assert count


def test_no_key_is_left_out(stored):
    for values, tensors in stored:
        known = {"logit_scale", "mAP", "average_precision_per_class"}
        assert {k for k, v in values.items() if not isinstance(v, dict)} <= known
        used = {"audio", "ap_score", "ap_target"} | {
            f"text_{k.split('_')[0]}" for k, v in values.items() if isinstance(v, dict)
        }
        assert set(tensors) <= used
