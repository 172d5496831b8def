"""The captioner's loss against its formula, what learns and what stays, and that it does learn to answer."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forks import two_of

from otic.core.batch import Batch
from otic.core.errors import DataError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.captioner import CaptionerConfig
from otic.models.mapper import MapperConfig
from otic.models.text_block import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.objectives.caption import Caption, CaptionConfig

KINDS = ("a dog", "rain", "a bell", "wind")


def objective(pool="mean", dropout=0.0, drop_path=0.0, **cfg):
    encoder = ViT(ViTConfig(width=16, depth=2, heads=2, mels=32, drop_path=drop_path), generator("encoder"))
    text = TextConfig(vocab=0, positions=48, width=24, depth=1, heads=2, dropout=dropout)
    net = CaptionerConfig(text=text, mapper=MapperConfig(prefix=3, depth=1, heads=2, unfold=2), pool=pool)
    return Caption(encoder, CaptionConfig(captioner=net, **cfg), generator("objective"), Tokenizer.plain(length=20))


def batch(prompts=("what?",) * 8):
    gen = generator("clips")
    spec = 0.3 * torch.randn(8, 1, 64, 32, generator=gen)
    for clip in range(8):
        spec[clip, 0, :, 8 * (clip % 4) : 8 * (clip % 4) + 8] += 1.5
    text = tuple(KINDS[clip % 4] for clip in range(8))
    return Batch(torch.zeros(8, 1), torch.ones(8, dtype=torch.long), spec=spec, text=text, prompts=prompts)


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_tokens_of_the_texts():
    method, clips = objective().eval(), batch(("what?", "", "who is it?", "x") * 2)
    net, total, tokens = method.captioner, 0.0, 0
    prefix = net.prefix(clips.spec)
    for k in range(8):
        total += net.weigh(prefix[k, None], clips.prompts[k], [clips.text[k]]).item()
        tokens += int(net.tokenizer([clips.text[k]]).mask.sum())  # the end token too
    loss = method(clips, generator(0))
    assert loss.total.item() == pytest.approx(-total / tokens, rel=1e-5)
    assert 0 <= loss.parts["accuracy"] <= 1


def gradients(out):
    """A process's share of clips whose texts are of very different lengths."""
    rank, size, whole = dist.get_rank(), dist.get_world_size(), uneven()
    own = slice(rank * 8 // size, (rank + 1) * 8 // size)
    method = objective()
    part = replace(
        whole, wave=whole.wave[own], lengths=whole.lengths[own], spec=whole.spec[own], text=whole.text[own],
        prompts=whole.prompts[own],
    )  # fmt: skip
    loss = method(part, generator(0)).total
    loss.backward()
    both = torch.cat([loss.detach()[None], *(p.grad.flatten() for p in method.parameters() if p.grad is not None)])
    dist.all_reduce(both)
    if rank == 0:
        torch.save(both / size, out / "two.pt")


def uneven():
    return replace(batch(), text=("a dog that barks",) * 4 + ("x",) * 4)


def test_two_processes_are_one(tmp_path):
    """The mean is over all tokens, not over the means of processes whose texts are short or long."""
    two_of(gradients, tmp_path)
    method = objective()
    loss = method(uneven(), generator(0)).total
    loss.backward()
    one = torch.cat([loss.detach()[None], *(p.grad.flatten() for p in method.parameters() if p.grad is not None)])
    torch.testing.assert_close(torch.load(tmp_path / "two.pt"), one, rtol=1e-4, atol=1e-6)


def test_clips_without_a_prompt_get_the_configs():
    method = objective(prompt="what?").eval()
    asked, silent = (method(batch(prompts), generator(0)).total for prompts in (("what?",) * 8, None))
    assert torch.equal(asked, silent)
    assert not torch.equal(asked, method(batch(("who?",) * 8), generator(0)).total)


@torch.no_grad()
def test_padding_is_not_heard():
    method, clips = objective().eval(), replace(batch(), frames=torch.tensor([64, 32, 48, 16] * 2))
    padded = clips.spec.clone()
    for clip, frames in zip(padded, clips.frames.tolist(), strict=True):
        clip[:, frames:] = 9.0
    loss = method(clips, generator(0)).total
    assert torch.equal(method(replace(clips, spec=padded), generator(0)).total, loss)
    assert not torch.equal(method(replace(clips, frames=None), generator(0)).total, loss)


def test_without_texts_there_is_nothing_to_learn():
    with pytest.raises(DataError, match="learns from texts"):
        objective()(replace(batch(), text=None), generator(0))


@pytest.mark.parametrize("frozen", ["freeze_text", "freeze_audio"])
def test_what_is_frozen_stays(frozen):
    method = objective(dropout=0.5, drop_path=0.5, **{frozen: True}).train()
    part = method.captioner.decoder if frozen == "freeze_text" else method.encoder
    assert not part.training and method.captioner.mapper.training
    method(batch(), generator(0)).total.backward()
    assert all(p.grad is None for p in part.parameters())
    assert all(p.grad is not None for p in method.captioner.mapper.parameters())


def test_dropout_draws_from_the_generator():
    method, state = objective(dropout=0.5, drop_path=0.5).train(), torch.get_rng_state()
    one, same, other = (method(batch(), generator(s)).total for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_learns_to_answer():
    method = objective("series")
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    for step in range(75):
        method(batch(), generator("learn", step)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    net = method.eval().captioner
    with torch.no_grad():
        prefix = net.prefix(batch().spec)
    said, _ = net.write(prefix, "what?", beams=2, longest=12)
    assert [clip[0] for clip in said] == list(batch().text)
    assert net.weigh(prefix, "what?", KINDS).argmax(1).tolist() == [0, 1, 2, 3] * 2
