from dataclasses import replace

import pytest
import torch

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.heads import HeadConfig
from otic.models.regularise import Regularise
from otic.objectives import Supervised, SupervisedConfig
from otic.objectives.supervised import bce, check_shares, cross_entropy, label_rows

LOGITS = torch.randn(4, 5, generator=generator("logits"))
MANY = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [1, 1, 1, 1, 1]])
CFG = SupervisedConfig(head=HeadConfig(classes=5))


def test_bce_by_hand():
    p = LOGITS.double().sigmoid()
    total = -(MANY * p.log() + (1 - MANY) * (1 - p).log()).sum()
    for per, count in (("label", 8.0), ("clip", 4), ("cell", 20)):
        assert bce(LOGITS, MANY, per).item() == pytest.approx((total / count).item(), rel=1e-5)
    assert bce(LOGITS, torch.zeros(4, 5)).isfinite()


def test_cross_entropy_by_hand():
    one = torch.eye(5)[:4]
    log = LOGITS.double().log_softmax(1)
    for smoothing in (0.0, 0.1):
        soft = (1 - smoothing) * one + smoothing / 5
        assert cross_entropy(LOGITS, one, smoothing).item() == pytest.approx(
            -(soft * log).sum(1).mean().item(), rel=1e-5
        )


def test_labels_as_indices_or_rows():
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4)), CFG)
    spec = torch.randn(3, 1, 32, 128, generator=generator("spec"))
    batch = Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), spec=spec, labels=torch.tensor([0, 4, 2]))
    rows = replace(batch, labels=torch.eye(5)[[0, 4, 2]])
    assert torch.equal(tuner(batch, generator(0)).total, tuner(rows, generator(0)).total)
    with pytest.raises(ConfigError, match="no labels"):
        tuner(replace(batch, labels=None), generator(0))
    with pytest.raises(ConfigError, match="6 classes, but the head has 5"):
        tuner(replace(batch, labels=torch.zeros(3, 6)), generator(0))
    with pytest.raises(ConfigError, match="at least 6 classes, but the head has 5"):
        tuner(replace(batch, labels=torch.tensor([0, 5, 2])), generator(0))


def test_indices_are_looked_at_before_they_leave_the_cpu():
    """The loop's check does; where numbers cannot be read without waiting (here: not at all), nothing reads them."""
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4)), CFG)
    odd = replace(clips(), labels=torch.tensor([0, 5, 2]))
    with pytest.raises(ConfigError, match="at least 6 classes, but the head has 5"):
        tuner.check(odd)
    tuner.check(replace(odd, labels=None))  # what forward says something of
    assert label_rows(odd.labels.to("meta"), 5).shape == (3, 5)


def test_one_class_at_a_time_is_not_learned_from_several():
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4)), CFG)
    many = replace(clips(), labels=torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 1, 1], [0, 0, 1, 0, 0]]).float())
    for ask in (tuner.check, lambda batch: tuner(batch, generator(0))):
        with pytest.raises(ConfigError, match=r"clip 1 of the batch: its labels sum to 3, .*objective\.loss=bce"):
            ask(many)
        with pytest.raises(ConfigError, match=r"^b\.wav@2: its labels sum to 3"):
            ask(replace(many, ids=("a.wav@0", "b.wav@2", "c.wav@1")))
    several = Supervised(tuner.net, replace(CFG, loss="bce"))
    several.check(many)
    assert several(many, generator(0)).total.isfinite()
    check_shares(many.labels.to("meta"))  # where numbers cannot be read without waiting, nothing reads them


@pytest.mark.parametrize("row", [[0, 0, 0, 0, 0], [0.5, 0.4, 0, 0, 0], [float("nan"), 1, 0, 0, 0]])
def test_rows_that_are_no_share_of_a_clip_are_refused(row):
    with pytest.raises(ConfigError, match="sum to"):
        check_shares(torch.tensor([[0, 0, 0, 0, 1], row]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mixtures_of_one_class_each_are_learned_from(dtype):
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4), generator("encoder")), CFG, generator("head"))
    rows = torch.rand(64, 1, generator=generator("mix")) * torch.eye(5)[torch.arange(64) % 5]
    rows = (rows + (1 - rows.sum(1, keepdim=True)) * torch.eye(5)[torch.arange(64) % 3]).to(dtype)  # mixup
    check_shares(rows)
    batch = replace(clips(), labels=rows[:3])
    tuner.check(batch)
    wanted = cross_entropy(tuner.logits(batch.spec), rows[:3])
    torch.testing.assert_close(tuner(batch, generator(0)).total, wanted)
    tuner.check(replace(batch, labels=torch.eye(5, dtype=torch.long)[:3]))  # whole numbers too


def test_its_head_goes_into_the_file():
    head = HeadConfig(classes=5, read="mean", eps=1e-5)
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4)), SupervisedConfig(head=head, loss="bce"))
    tensors, said = tuner.extras()
    assert said == {"head": {"classes": 5, "read": "mean", "eps": 1e-5, "std": 0.02}, "loss": "bce"}
    own = tuner.head.state_dict()
    assert tensors.keys() == {f"head.{name}" for name in own}
    assert all(torch.equal(tensors[f"head.{name}"], own[name]) for name in own)


def test_settings_reach_the_loss():
    encoder = ViT(ViTConfig(width=32, depth=1, heads=4), generator("encoder"))
    batch = clips()
    for cfg in ({"smoothing": 0.1}, {"loss": "bce"}, {"loss": "bce", "per": "cell"}):
        tuner = Supervised(encoder, replace(CFG, **cfg), generator("head")).eval()
        logits, rows = tuner.logits(batch.spec), torch.eye(5)[:3]
        loss = tuner(batch, generator(0))
        wanted = bce(logits, rows, cfg.get("per", "label")) if "loss" in cfg else cross_entropy(logits, rows, 0.1)
        torch.testing.assert_close(loss.total, wanted)
        right = (logits.argmax(1) == torch.arange(3)).float().mean()
        torch.testing.assert_close(loss.parts["accuracy"], right)


def clips(count=3, frames=96):
    spec = torch.randn(count, 1, frames, 128, generator=generator("spec"))
    return Batch(torch.zeros(count, 1), torch.ones(count, dtype=torch.long), spec=spec, labels=torch.arange(count))


def test_hidden_time_steps_and_rows_while_training():
    cfg = replace(CFG, hide_time=0.4, hide_freq=0.25, head=replace(CFG.head, read="mean"))
    tuner = Supervised(ViT(ViTConfig(width=32, depth=1, heads=4), generator("encoder")), cfg)
    batch = clips()
    visible = tuner.draw(batch.spec, generator(0)).view(3, 6, 8)
    for clip in visible:
        steps, rows = clip.any(1), clip.any(0)
        assert (int(steps.sum()), int(rows.sum())) == (int(6 * (1 - 0.4)), int(8 * (1 - 0.25)))
        assert torch.equal(clip, steps[:, None] & rows)
    seen = visible.flatten(1)
    alone = torch.cat([
        tuner.head(tuner.net.encode(tuner.net.tokens(batch.spec)[0][k : k + 1, seen[k]])) for k in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(tuner.logits(batch.spec, seen), alone, atol=1e-5, rtol=1e-5)
    assert tuner.eval().draw(batch.spec, generator(0)) is None  # all tokens at test time


def test_regularised_masking_while_training_alone():
    encoder = ViT(ViTConfig(width=32, depth=2, heads=4), generator("encoder"))
    plain, tuner = Supervised(encoder, CFG), Supervised(encoder, replace(CFG, rm=Regularise(ratio=0.3)))
    tuner.head.load_state_dict(plain.head.state_dict())
    batch, gen = clips(), generator
    assert not torch.equal(tuner(batch, gen(0)).total, plain(batch, gen(0)).total)
    assert not torch.equal(tuner(batch, gen(0)).total, tuner(batch, gen(1)).total)
    tuner.eval()
    assert torch.equal(tuner(batch, gen(0)).total, plain(batch, gen(0)).total)
    both = Supervised(encoder.train(), replace(CFG, rm=Regularise(), hide_time=0.3))
    both(batch, gen(0)).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in both.parameters() if p.requires_grad)
