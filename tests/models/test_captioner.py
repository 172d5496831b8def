"""Encoder, mapper and language model together: what stands where, what counts, what is kept."""

import pytest
import torch

from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.captioner import Captioner, CaptionerConfig, from_file, in_line, to_file
from otic.models.mapper import Mapper, MapperConfig
from otic.models.text_block import TextConfig
from otic.models.tokenizer import Tokenizer, Tokens

TEXT = TextConfig(vocab=0, positions=160, width=24, depth=2, heads=2)
MAPPER = MapperConfig(prefix=3, depth=1, heads=2, unfold=2)


def captioner(pool="mean", seed=0):
    encoder = ViT(ViTConfig(width=16, depth=1, heads=2, mels=32), generator("encoder"))
    cfg = CaptionerConfig(text=TEXT, mapper=MAPPER, pool=pool)
    model = Captioner(encoder, cfg, Tokenizer.plain(), generator(seed)).eval()
    with torch.no_grad():
        model.decoder.tokens.weight.mul_(40)  # a model that has opinions
    return model


def spec(clips=3, frames=64):
    return torch.randn(clips, 1, frames, 32, generator=generator("spec"))


def plain_log_probability(model, prefix, prompt, text):
    """Token by token, from the definition."""
    ids = [*model.tokenizer([prompt]).ids[0].tolist(), *model.tokenizer([text]).ids[0].tolist()]
    begin = len(model.tokenizer([prompt]).ids[0])
    total = 0.0
    for n in range(begin, len(ids)):
        x = torch.cat((prefix[None], model.decoder.embed(torch.tensor([ids[:n]]))), 1)
        total += float(model.decoder.logits(model.decoder.run(x))[0, -1].double().log_softmax(-1)[ids[n]])
    return total


def test_prompt_and_text_in_one_line():
    def tokens(*rows):
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        return Tokens(ids, ids > 0)

    ids, after = in_line(tokens([5, 6, 1], [1]), tokens([7, 1], [8, 9, 9, 1]), 0)
    assert ids.tolist() == [[5, 6, 1, 7, 1], [1, 8, 9, 9, 1]]
    assert after.tolist() == [[False, False, False, True, True], [False, True, True, True, True]]


@pytest.mark.parametrize("pool", ["mean", "cls+mean_std", "series"])
@torch.no_grad()
def test_training_and_weighing_follow_the_definition(pool):
    model = captioner(pool)
    prefix, prompts, texts = model.prefix(spec()), ["what?", "what?", ""], ["a dog", "rain", "a cat"]
    assert prefix.shape == (3, 3, 24)
    ids, after = model.line(prompts, texts)
    logits = model.logits(prefix, ids, after, None).log_softmax(-1)
    each = logits.gather(1, ids[after][:, None])[:, 0].split(after.sum(1).tolist())
    for k in range(3):
        wanted = plain_log_probability(model, prefix[k], prompts[k], texts[k])
        assert each[k].sum().item() == pytest.approx(wanted, abs=1e-3)
    weighed = model.weigh(prefix, "what?", ["a dog", "rain", "a"])
    for k, option in ((0, "a dog"), (1, "rain"), (2, "a")):
        assert weighed[1, k].item() == pytest.approx(plain_log_probability(model, prefix[1], "what?", option), abs=1e-3)


@pytest.mark.parametrize("pool", ["mean", "series"])
@torch.no_grad()
def test_padding_does_not_count(pool):
    model, clips = captioner(pool), spec(2, 64)
    padded = torch.cat((clips, torch.full((2, 1, 32, 32), 9.0)), 2)
    torch.testing.assert_close(model.prefix(padded, torch.tensor([64, 64])), model.prefix(clips))
    mixed = model.prefix(padded, torch.tensor([64, 96]))
    torch.testing.assert_close(mixed[0], model.prefix(clips)[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[1], model.prefix(padded)[1], atol=1e-5, rtol=1e-4)


def test_written_texts_are_weighed_as_they_were_found():
    model = captioner()
    prefix = model.prefix(spec()).detach()
    said, worth = model.write(prefix, "what?", beams=3, longest=6, power=0.0)
    assert len(said) == 3 and all(len(clip) == 3 for clip in said) and worth.shape == (3, 3)
    for clip in range(3):
        ended = [k for k, text in enumerate(said[clip]) if text.isascii() and len(text) < 5]
        for k in ended:
            weighed = model.weigh(prefix[clip, None], "what?", [said[clip][k]])
            assert weighed.item() == pytest.approx(worth[clip, k].item(), abs=1e-3)


def test_it_comes_back_from_a_file():
    model = captioner("series", seed=4)
    tensors, config = to_file(model)
    assert not any(name.startswith("captioner.encoder") for name in tensors)
    again = from_file(model.encoder, tensors, config)
    assert torch.equal(again.prefix(spec()), model.prefix(spec()))
    assert from_file(model.encoder, {}, {}) is None
    assert from_dict(CaptionerConfig, to_dict(model.cfg)) == model.cfg


def test_what_does_not_fit_is_named():
    encoder = ViT(ViTConfig(width=16, depth=1, heads=2, cls=False))
    for cfg, message in (
        (CaptionerConfig(text=TextConfig(kind="bert")), "only a decoder can write"),
        (CaptionerConfig(text=TextConfig(vocab=0, positions=77)), "may take 194"),
        (CaptionerConfig(text=TEXT, mapper=MapperConfig(heads=5, prefix=4)), "heads=5: must divide"),
        (CaptionerConfig(text=TEXT, mapper=MAPPER, pool="cls"), "no CLS token"),
        (CaptionerConfig(text=TEXT, mapper=MAPPER, pool="meen"), "Did you mean 'mean'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Captioner(encoder, cfg)


def test_the_mapper_hears_order_in_a_series_alone():
    cfg, gen = MapperConfig(prefix=4, depth=2, heads=2, unfold=3), generator("mapper")
    series, real = torch.randn(2, 5, 8, generator=gen), torch.ones(2, 5, dtype=torch.bool)
    mapper = Mapper(8, 12, True, cfg, generator(0))
    assert mapper(series, real).shape == (2, 4, 12)
    assert not torch.allclose(mapper(series, real), mapper(series.flip(1), real), atol=1e-4)
    pooled = Mapper(8, 12, False, cfg, generator(0))
    assert pooled(series[:, :1], real[:, :1]).shape == (2, 4, 12) and pooled.into.out_features == 36


def test_first_weights_follow_from_the_generator():
    one, same, other = (captioner(seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
