"""CLAP: the loss written again, towers frozen or not, words that read the same, two processes like one."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from forks import two_of

from otic.core.batch import Batch
from otic.core.errors import ConfigError, DataError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.contrast import hardness, sigmoid, symmetric
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import ReaderConfig, TwoTower, TwoTowerConfig, from_file, to_file
from otic.objectives.clap import CLAP, CLAPConfig, key

TEXT = TextConfig(vocab=0, positions=77, width=32, depth=1, heads=2, dropout=0.0)
TOWERS = TwoTowerConfig(
    text=TEXT, dim=16, dropout=0.0, pool="series", layers=(0, 1), reader=ReaderConfig(width=32, depth=1, heads=2)
)
CAPTIONS = ("a dog barks", "it rains", "a dog barks and then it rains", "a clock", "wind", "a baby", "fire", "waves")


def build(towers=TOWERS, **changes):
    encoder = ViT(ViTConfig(width=32, depth=2, heads=4, mels=32), generator("encoder"))
    return CLAP(
        encoder, CLAPConfig(towers=towers, **changes), generator("objective"), Tokenizer.train(CAPTIONS, 300)
    ).train()


def batch(captions=CAPTIONS, negatives=None, frames=None):
    n = len(captions)
    spec = torch.randn(n, 1, 64, 32, generator=generator("clips"))
    frames = torch.full((n,), 64) if frames is None else torch.tensor(frames)
    ids = tuple(f"{i}@0.000" for i in range(n))
    return Batch(
        torch.zeros(n, 1),
        torch.ones(n, dtype=torch.long),
        spec=spec,
        frames=frames,
        text=captions,
        negatives=negatives,
        ids=ids,
    )


def vectors(objective, batch):
    towers = objective.towers
    audio = F.normalize(towers.audio(batch.spec, batch.frames, gen=generator(0)), dim=-1)
    text = F.normalize(towers.words(towers.tokenizer(batch.text), generator(0)), dim=-1)
    return audio, text


def test_the_loss_is_the_papers():
    objective = build()
    audio, text = vectors(objective, batch())
    scaled = (audio @ text.T / 0.07).tolist()
    rows = [-row[i] + math.log(sum(map(math.exp, row))) for i, row in enumerate(scaled)]
    columns = [-scaled[i][i] + math.log(sum(math.exp(row[i]) for row in scaled)) for i in range(8)]
    loss = objective(batch(), generator(0))
    assert loss.total.item() == pytest.approx((sum(rows) + sum(columns)) / 16, rel=1e-5)
    assert loss.parts["scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_equal_captions_are_no_negatives():
    same = ("a dog barks", "a dog barks", *CAPTIONS[2:])
    masked, plain = build()(batch(same), generator(0)), build(same="negatives")(batch(same), generator(0))
    audio, text = vectors(build(), batch(same))
    scaled = (audio @ text.T / 0.07).detach()
    assert plain.total.item() == pytest.approx(symmetric(scaled).item(), rel=1e-5)
    hidden = scaled.clone()
    hidden[0, 1] = hidden[1, 0] = -math.inf
    assert masked.total.item() == pytest.approx(symmetric(hidden).item(), rel=1e-5)


def test_nearly_right_captions_stand_in_their_clips_rows():
    odd = tuple(f"not {c}" for c in CAPTIONS)
    objective = build(hard_negatives=True)
    audio, text = vectors(objective, batch())
    wrong = F.normalize(objective.towers.words(objective.towers.tokenizer(odd)), dim=-1)
    scaled = audio @ text.T / 0.07
    rows = torch.cat((scaled, (audio * wrong).sum(1, keepdim=True) / 0.07), 1)
    target = torch.arange(8)
    wanted = (F.cross_entropy(rows, target) + F.cross_entropy(scaled.T, target)) / 2
    assert objective(batch(negatives=odd), generator(0)).total.item() == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(DataError, match="hard_negative"):
        objective(batch(), generator(0))
    some = ("", *odd[1:])  # the first clip has none
    less = F.cross_entropy(rows[:1], target[:1]) - F.cross_entropy(scaled[:1], target[:1])
    total = objective(batch(negatives=some), generator(0)).total
    assert total.item() == pytest.approx((wanted - less / 16).item(), rel=1e-5)


def test_settings_of_another_loss_are_refused():
    for settings in ({"hard": 0.15}, {"hard_negatives": True}):
        with pytest.raises(ConfigError, match="loss=sigmoid has no use"):
            build(loss="sigmoid", **settings)
    with pytest.raises(ConfigError, match=r"towers\.bias=-10: a softmax does not learn it"):
        build(replace(TOWERS, bias=-10.0))


def test_captions_with_bytes_that_are_no_text():
    """A table that is not UTF-8 keeps them as surrogates."""
    assert key("caf\udce9") != key("café")


def test_sigmoid_pair_by_pair():
    objective = build(replace(TOWERS, bias=-10.0), loss="sigmoid")
    audio, text = vectors(objective, batch())
    total = 0.0
    for i in range(8):
        for j in range(8):
            z = 1 if i == j else -1
            total += math.log1p(math.exp(-z * ((audio[i] @ text[j]).item() / 0.07 - 10.0)))
    assert objective(batch(), generator(0)).total.item() == pytest.approx(total / 8, rel=1e-5)
    assert sigmoid(torch.zeros(3, 3)).item() == pytest.approx(3 * math.log(2))


def test_weights_of_hard_negatives():
    """Brute force: (m - 1) exp(beta s_ij) / sum over negatives, multiplied into the denominator."""
    logits, beta = torch.randn(5, 5, generator=generator("hard")), 0.15
    for i, row in enumerate((logits + hardness(logits, beta)).exp()):
        heavy = [math.exp(beta * logits[i, j]) for j in range(5) if j != i]
        wanted = [
            math.exp(logits[i, j]) * (1 if j == i else 4 * math.exp(beta * logits[i, j]) / sum(heavy)) for j in range(5)
        ]
        assert torch.allclose(row, torch.tensor(wanted), rtol=1e-5)
    audio, text = vectors(build(), batch())
    scaled, target = audio @ text.T / 0.07, torch.arange(8)
    wanted = sum(F.cross_entropy(x + hardness(x, beta), target) for x in (scaled, scaled.T)) / 2
    assert build(hard=beta)(batch(), generator(0)).total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_frozen_towers_stay_and_are_heard_once():
    objective = build(freeze_audio=True, freeze_text=True, remember=True)
    assert not objective.encoder.training and not objective.towers.text.training
    assert objective.needs_spec(batch())
    first = objective(batch(), generator(0))
    objective.towers.encoder.forward = None  # not needed a second time
    assert not objective.needs_spec(batch())
    again = objective(replace(batch(), spec=None, frames=None), generator(0))
    assert torch.equal(first.total, again.total)
    first.total.backward()
    assert all(p.grad is None for p in objective.encoder.parameters())
    assert all(p.grad is None for p in objective.towers.text.parameters())
    assert all(p.grad is not None for p in objective.towers.audio_head.parameters())


def test_what_a_frozen_text_tower_says_may_be_known_before():
    """Then it is not asked; and its vectors are what enters the head, of length one where the config says so."""
    objective = build(replace(TOWERS, unit_text=True), freeze_text=True)
    towers = objective.towers
    tokens = towers.tokenizer(CAPTIONS)
    said = towers.understand(tokens)
    assert torch.allclose(said, F.normalize(towers.text(*tokens), dim=-1), atol=1e-6)
    assert torch.allclose(towers.words(tokens), towers.text_head(said), atol=1e-6)
    want = objective(batch(), generator(0)).total
    other = build(replace(TOWERS, unit_text=True), freeze_text=True)
    other.know(CAPTIONS, said)
    other.towers.text.forward = None
    assert other(batch(), generator(0)).total.item() == pytest.approx(want.item(), rel=1e-5)


def test_what_is_computed_once_does_not_depend_on_company():
    """So that a resumed run, which meets clips and texts in other company, has the same numbers bit for bit."""
    one, other = (build(freeze_audio=True, freeze_text=True, remember=True) for _ in range(2))
    first = one(batch(), generator(0)).total
    for some in (slice(3, 8), slice(0, 2)):
        part = batch()
        other(
            replace(
                part, wave=part.wave[some], lengths=part.lengths[some], spec=part.spec[some],
                frames=part.frames[some], text=part.text[some], ids=part.ids[some],
            ),
            generator(1),
        )  # fmt: skip
    assert torch.equal(other(batch(), generator(0)).total, first)


def test_what_is_remembered_is_what_would_be_heard():
    """Of clips of unequal length, each by its own frames; kept in float16."""
    frames = [64, 17, 33, 48, 64, 16, 40, 5]
    fresh, kept = (build(freeze_audio=True, freeze_text=True, remember=r) for r in (False, True))
    want = fresh(batch(frames=frames), generator(0)).total.item()
    assert kept(batch(frames=frames), generator(0)).total.item() == pytest.approx(want, rel=1e-3)


def test_parts_are_those_of_the_matrix_of_cosines():
    objective = build()
    audio, text = vectors(objective, batch())
    cosine, parts = audio @ text.T, objective(batch(), generator(0)).parts
    right = sum(max(range(8), key=row.__getitem__) == i for i, row in enumerate(cosine.tolist()))
    assert parts["accuracy"].item() == pytest.approx(right / 8)
    assert parts["match_cosine"].item() == pytest.approx(cosine.diagonal().mean().item(), rel=1e-4)


def test_remembering_wants_a_frozen_tower():
    with pytest.raises(ConfigError, match="freeze_audio=true"):
        build(remember=True)


def test_padding_changes_nothing():
    """A clip alone, cut to its own patches, and the same clip among longer ones."""
    towers = build().towers.eval()
    clips = batch(frames=[64, 17, 33, 48, 64, 16, 40, 5])
    together = towers.audio(clips.spec, clips.frames)
    for i, span in enumerate((64, 32, 48, 48, 64, 16, 48, 16)):
        alone = towers.audio(clips.spec[i : i + 1, :, :span])
        assert torch.allclose(together[i], alone[0], atol=1e-5), i


def test_without_captions():
    with pytest.raises(DataError, match="caption"):
        build()(replace(batch(), text=None), generator(0))


@pytest.mark.parametrize("pool", ["mean", "cls", "mean_std+max", "bands", "series"])
def test_any_pooling_and_back_from_a_file(pool):
    towers = build(replace(TOWERS, pool=pool)).towers.eval()
    tensors, config = to_file(towers)
    other = ViT(towers.encoder.cfg, generator("encoder"))
    again = from_file(other, tensors, config)
    assert isinstance(again, TwoTower)
    assert torch.equal(again.audio(batch().spec), towers.audio(batch().spec))
    assert torch.equal(again.words(again.tokenizer(CAPTIONS)), towers.words(towers.tokenizer(CAPTIONS)))
    assert from_file(other, {}, {}) is None


def test_the_scale_is_clamped():
    towers = build().towers
    towers.log_scale.data.fill_(9.0)
    assert towers.scale.item() == 100.0


@pytest.mark.parametrize(
    ("log_scale", "scale"), [(9.0, 100.0), (math.log(100.0), 100.0), (-1.0, 1.0), (2.5, math.exp(2.5))]
)
def test_a_scale_that_went_too_far_comes_back(log_scale, scale):
    """A cut scale has no gradient: without the step back it would stay cut for ever."""
    objective = build()
    objective.towers.log_scale.data.fill_(log_scale)
    objective.after_step(1)
    assert objective.towers.scale.item() == pytest.approx(scale, rel=1e-5)
    objective(batch(), generator(0)).total.backward()
    assert objective.towers.log_scale.grad.abs().item() > 0


def gradients(out):
    rank, size = dist.get_rank(), dist.get_world_size()
    objective, whole = build(), batch()
    own = slice(rank * 8 // size, (rank + 1) * 8 // size)
    part = replace(
        whole, wave=whole.wave[own], lengths=whole.lengths[own], spec=whole.spec[own], frames=whole.frames[own],
        text=whole.text[own], ids=whole.ids[own],
    )  # fmt: skip
    loss = objective(part, generator(0))
    loss.total.backward()
    grads = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    for g in grads.values():
        dist.all_reduce(g)
    if rank == 0:
        torch.save({"loss": loss.total.item(), "grads": {n: g / size for n, g in grads.items()}}, out / "two.pt")


def test_two_processes_are_one(tmp_path):
    """All processes' clips are negatives, and gradients come back through the gathering."""
    two_of(gradients, tmp_path)
    two = torch.load(tmp_path / "two.pt")
    objective = build()
    loss = objective(batch(), generator(0))
    loss.total.backward()
    assert two["loss"] == pytest.approx(loss.total.item(), rel=1e-5)
    for name, p in objective.named_parameters():
        if p.grad is not None:
            assert torch.allclose(two["grads"][name], p.grad, rtol=1e-3, atol=1e-5), name
