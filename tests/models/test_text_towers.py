"""The text towers: attention as a plain loop, what may and may not change a text's vector, caches, dropout."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.text import Past, TextConfig, fitted, in_groups, text_tower
from otic.models.text_block import attend, drop, earlier
from otic.models.tokenizer import Tokenizer, Tokens

SMALL = {"vocab": 30, "positions": 12, "width": 16, "depth": 2, "heads": 4, "end": 29}
DECODER = TextConfig(**SMALL)
BERT = TextConfig(**SMALL, kind="bert", pool="mean", tanh_gelu=False)
ROBERTA = TextConfig(**SMALL, kind="roberta", pool="pooler", tanh_gelu=False, pad=1, types=1)
ALL = pytest.mark.parametrize("cfg", [DECODER, BERT, ROBERTA], ids=lambda c: c.kind)


def lively(cfg):
    """A tower whose every weight matters."""
    tower, gen = text_tower(cfg).eval(), generator("lively")
    with torch.no_grad():
        for p in tower.parameters():
            p.add_(torch.empty_like(p).normal_(0.0, 0.2, generator=gen))
    return tower


def texts(lengths, cfg=DECODER, width=None, seed=0):
    """Random texts that close with the end token, padded at the right."""
    width = width or max(lengths)
    ids = torch.randint(3, cfg.end, (len(lengths), width), generator=generator(seed))
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = cfg.end
    return Tokens(ids.where(mask, torch.tensor(cfg.pad)), mask)


def slow_attention(q, k, v, seen):
    """Softmax attention, one query at a time."""
    out = torch.zeros_like(q)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = [j for j in range(k.shape[2]) if seen[n, i, j]]
                scores = torch.stack([q[n, h, i] @ k[n, h, j] / q.shape[-1] ** 0.5 for j in keys])
                weights = scores.exp() / scores.exp().sum()
                out[n, h, i] = sum(w * v[n, h, j] for w, j in zip(weights, keys, strict=True))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_as_a_loop(dtype):
    gen = generator("qkv")
    q, k, v = (torch.randn(2, 3, n, 4, generator=gen) for n in (4, 6, 6))
    seen = torch.rand(2, 4, 6, generator=gen) > 0.4
    seen[:, :, 0] = True
    want = slow_attention(q, k, v, seen)
    got = attend(q.to(dtype), k.to(dtype), v.to(dtype), seen[:, None])
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=0)
    causal = slow_attention(q, k[:, :, :4], v[:, :, :4], earlier(4, 0, q.device).expand(2, -1, -1))
    got = attend(q.to(dtype), k[:, :, :4].to(dtype), v[:, :, :4].to(dtype), causal=True)
    torch.testing.assert_close(got.float(), causal, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=0)


def test_dropped_attention_is_what_its_generator_says():
    """Weights of zero, and the others divided by what is kept."""
    q, k, v = torch.randn(3, 1, 1, 5, 4, generator=generator("qkv"))
    weights = (q @ k.mT / 2).masked_fill(~earlier(5, 0, q.device), -torch.inf).softmax(-1)
    want = drop(weights, 0.5, generator("coins")) @ v
    torch.testing.assert_close(attend(q, k, v, causal=True, p=0.5, gen=generator("coins")), want)


@given(st.floats(0.05, 0.9))
@settings(max_examples=10, deadline=None)
def test_dropout_keeps_the_mean(p):
    x = drop(torch.ones(20_000), p, generator("drop"))
    assert x.mean().item() == pytest.approx(1, abs=6 * (p / (1 - p) / 20_000) ** 0.5)
    assert set(x.unique().tolist()) <= {0.0, torch.tensor(1.0).div(1 - p).item()}


@ALL
@torch.no_grad()
def test_padding_changes_nothing(cfg):
    tower = lively(cfg)
    short, long = texts([2, 5, 7], cfg), texts([2, 5, 7], cfg, width=9)
    long.ids[:, :7] = short.ids
    torch.testing.assert_close(tower(*short), tower(*long), atol=1e-5, rtol=0)
    for i, n in enumerate((2, 5, 7)):
        alone = tower(short.ids[i : i + 1, :n], short.mask[i : i + 1, :n])
        torch.testing.assert_close(tower(*short)[i : i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind",
    [
        DECODER,
        replace(DECODER, pool="mean"),
        replace(DECODER, pool="count_nonzero"),
        BERT,
        replace(BERT, pool="cls"),
        ROBERTA,
    ],
    ids=lambda c: f"{c.kind}-{c.pool}",
)
@pytest.mark.parametrize("bf16", [False, True])
def test_company_changes_no_vector(kind, bf16):
    """Packed texts: as alone, whatever stands beside them, and as the padded way has them."""
    cfg = replace(kind, positions=60, width=48)
    tower, tokens = lively(cfg), texts([2, 33, 17, 1, 16, 9, 9, 40], cfg, width=44)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        together = tower(*tokens)
        for rows in ([3], [0, 3], [7, 2, 5], [1], [6, 4, 3, 2]):
            most = int(tokens.mask[rows].sum(1).max())
            some = tower(tokens.ids[rows, :most], tokens.mask[rows, :most])
            torch.testing.assert_close(some, together[rows], atol=1e-6, rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        padded = tower(*tokens).detach()  # where gradients are kept, nothing is packed
    scale = padded.float().abs().max().item()
    torch.testing.assert_close(together.float(), padded.float(), atol=scale * (0.06 if bf16 else 1e-5), rtol=0)


@torch.no_grad()
def test_holes_in_a_mask_are_not_looked_at():
    ids = torch.tensor([[5, 6, 7, 29, 8], [9, 3, 4, 29, 0]])
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]]) > 0
    for cfg in (DECODER, replace(DECODER, pool="mean"), BERT, replace(BERT, pool="cls"), ROBERTA):
        tower = lively(cfg)
        with torch.enable_grad():
            padded = tower(ids, mask)
        torch.testing.assert_close(tower(ids, mask), padded.detach(), atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_groups_give_the_rows_in_order(lengths, size):
    tower, tokens, widths = lively(DECODER), texts(lengths, width=10), []

    def call(t):
        widths.append(t.ids.shape[1])
        return tower(t.ids, t.mask)

    got = in_groups(call, tokens, size)
    torch.testing.assert_close(got, tower(*tokens), atol=1e-5, rtol=0)
    if len(lengths) > 1:
        assert widths == [max(sorted(lengths)[i : i + size]) for i in range(0, len(lengths), size)]


def test_no_texts():
    nothing = Tokens(torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool))
    for cfg in (DECODER, BERT, ROBERTA):
        tower = lively(cfg)
        assert in_groups(lambda t: tower(t.ids, t.mask), nothing).shape == (0, 16)  # noqa: B023


@torch.no_grad()
def test_a_decoder_looks_back_alone():
    tower, ids = lively(DECODER), texts([8]).ids
    states, other = tower.states(ids), ids.clone()
    other[0, 5] = (other[0, 5] + 1) % 29
    changed = (tower.states(other) - states).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False] * 5 + [True] * 3


def test_pooling():
    ids = torch.tensor([[5, 6, 29, 29, 0], [5, 0, 7, 29, 0], [5, 6, 7, 8, 9], [29, 0, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]) > 0
    tower = lively(DECODER)
    assert tower.pooled(ids, mask).tolist() == [2, 3, 4, 0]  # the first end token, or the last one
    upstream = lively(replace(DECODER, pool="count_nonzero"))
    assert upstream.pooled(ids, mask).tolist() == [3, 2, 4, 0]  # ids that are not 0, less one
    for cfg in (replace(DECODER, pool="mean"), BERT):
        mean = lively(cfg)
        states = mean.states(ids, mask)
        want = torch.stack([s[m].mean(0) for s, m in zip(states, mask, strict=True)])
        torch.testing.assert_close(mean(ids, mask), want, atol=1e-5, rtol=0)
    first = lively(replace(BERT, pool="cls"))
    assert torch.equal(first(ids, mask), first.states(ids, mask)[:, 0])
    pooler = lively(ROBERTA)
    want = torch.tanh(pooler.states(ids, mask)[:, 0] @ pooler.pooler.weight.T + pooler.pooler.bias)
    torch.testing.assert_close(pooler(ids, mask), want)


def test_roberta_counts_real_tokens():
    tower = lively(ROBERTA)
    assert tower._places(torch.tensor([[7, 8, 1, 9, 1, 1]])).tolist() == [[2, 3, 1, 4, 1, 1]]


@torch.no_grad()
def test_beams_share_a_past():
    """Rows picked from a cache go on as if they had been run from the beginning."""
    tower, tokens = lively(DECODER), texts([6, 4])
    past, rows = Past(), torch.tensor([1, 0, 1])
    tower.run(tower.embed(tokens.ids), tokens.mask, past=past)
    past.pick(rows)
    assert past.length == 6
    extra = torch.tensor([[3], [4], [5]])
    got = tower.run(tower.embed(extra), past=past)
    ids = torch.cat((tokens.ids[rows], extra), 1)
    mask = torch.cat((tokens.mask[rows], torch.ones(3, 1, dtype=torch.bool)), 1)
    torch.testing.assert_close(got, tower.states(ids, mask)[:, -1:], atol=1e-5, rtol=0)
    hidden = tower.states(ids.where(mask, torch.tensor(7)), mask)[:, -1:]
    torch.testing.assert_close(got, hidden, atol=1e-5, rtol=0)  # nobody looked at padding


@torch.no_grad()
def test_a_language_model():
    """Vectors in front, words behind, and the token table as output."""
    tower = lively(DECODER)
    x = torch.cat((torch.randn(2, 3, 16, generator=generator("prefix")), tower.embed(texts([4, 4]).ids)), 1)
    logits = tower.logits(tower.run(x))
    assert logits.shape == (2, 7, 30)
    torch.testing.assert_close(logits[0, 2, 5], tower.run(x)[0, 2] @ tower.tokens.weight[5])
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, :3] = False  # padding on the left sees itself, and gives finite states
    assert tower.run(x, mask).isfinite().all()


@ALL
def test_training_draws_from_its_generator_alone(cfg):
    tower, tokens = text_tower(cfg).train(), texts([4, 6], cfg)
    state = torch.random.get_rng_state()
    first, again, other = (tower(*tokens, generator("dropout", i)) for i in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(AssertionError, match="pass gen"):
        tower(*tokens)
    first.square().sum().backward()
    unread = {"tokens", "positions"}  # their rows that no text uses
    assert all(p.grad is not None and (p.grad.any() or n.split(".")[0] in unread) for n, p in tower.named_parameters())
    calm = text_tower(replace(cfg, dropout=0.0)).train()
    calm.load_state_dict(tower.state_dict())
    torch.testing.assert_close(calm(*tokens), tower.eval()(*tokens))


@ALL
def test_the_first_weights(cfg):
    a, b = text_tower(cfg, generator("a")), text_tower(cfg, generator("a"))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    big = text_tower(replace(cfg, width=64))
    assert big.tokens.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert big.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    shrunk = 0.01 if cfg.kind == "decoder" else 0.02  # of two blocks with two residuals each
    assert big.blocks[0].attn.out.weight.std().item() == pytest.approx(shrunk, rel=0.1)
    with torch.device("meta"):
        assert text_tower(cfg).tokens.weight.is_meta


@ALL
@torch.no_grad()
def test_bfloat16_stays_near(cfg):
    tower, tokens = lively(cfg), texts([4, 9, 6], cfg)
    want = tower(*tokens)
    with torch.autocast("cpu", torch.bfloat16):
        got = tower(*tokens).float()
    assert torch.cosine_similarity(got, want).min() > 0.999


def test_a_small_tower_learns_to_tell_texts_apart():
    tower, classes = text_tower(replace(DECODER, dropout=0.1)).train(), torch.randn(16, 4, generator=generator("to"))
    tokens, optimizer, losses = texts([4, 6, 5, 7]), torch.optim.Adam(tower.parameters(), 3e-3), []
    for step in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(tower(*tokens, generator(step)) @ classes, torch.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_what_does_not_fit_is_named():
    for change, message in [
        ({"vocab": 0}, "as many as the tokenizer"),
        ({"heads": 3}, "multiple of heads=3"),
        ({"pool": "cls"}, "does not fit a text tower"),
    ]:
        with pytest.raises(ConfigError, match=message):
            text_tower(replace(DECODER, **change))
    with pytest.raises(ConfigError, match="does not fit"):
        text_tower(replace(BERT, pool="end"))
    tower = text_tower(DECODER).eval()
    with pytest.raises(ConfigError, match="13 text tokens, but the text tower has 12"):
        tower.states(torch.zeros(1, 13, dtype=torch.long))
    past = Past()
    tower.run(torch.zeros(1, 8, 16), past=past)
    with pytest.raises(ConfigError, match="13 text tokens"):
        tower.run(torch.zeros(1, 5, 16), past=past)
    with pytest.raises(ConfigError, match="13 text tokens"):
        text_tower(ROBERTA).eval().states(torch.zeros(1, 11, dtype=torch.long))


def test_fitted_to_a_tokenizer():
    plain = Tokenizer.plain(length=10)
    cfg = fitted(replace(DECODER, vocab=0), plain)
    assert (cfg.vocab, cfg.end, cfg.pad) == (plain.size, plain.end, plain.pad)
    assert text_tower(cfg).eval()(*plain(["a dog", "rain"])).shape == (2, 16)
    with pytest.raises(ConfigError, match="vocab=30, but the tokenizer has 258"):
        fitted(DECODER, plain)
    with pytest.raises(ConfigError, match="up to 77 tokens, the tower has room for 12"):
        fitted(replace(DECODER, vocab=0), Tokenizer.plain())
