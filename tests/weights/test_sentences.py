"""Sentence encoders on small models made here, against the forward pass written again; their cache."""

import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from otic.core.errors import WeightsError
from otic.core.seeds import generator
from otic.models.tokenizer_files import BYTES
from otic.weights import hub, sentence_cache
from otic.weights.sentences import SentenceEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "##s", "bark", "rain", "falls", "roof", "on", "!"]
TEXTS = ["a dog barks", "Rain falls on a roof", "dogs!", "rain rain rain rain rain rain rain rain", ""]
WIDTH, HEADS, DEPTH, HIDDEN = 16, 4, 2, 24
SIZES = {
    "model_type": "bert", "num_attention_heads": HEADS, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0
}  # fmt: skip


def write(folder, prefix="", words=WORDS, **changes):
    """A model as the hub has it, with what belongs to it and is not needed."""
    folder.mkdir(parents=True, exist_ok=True)
    square = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    linear = dict.fromkeys(square, (WIDTH, WIDTH))
    linear |= {"intermediate.dense": (HIDDEN, WIDTH), "output.dense": (WIDTH, HIDDEN)}
    linear = {f"encoder.layer.{i}.{name}": shape for i in range(DEPTH) for name, shape in linear.items()}
    norms = [f"encoder.layer.{i}.{name}.LayerNorm" for i in range(DEPTH) for name in ("attention.output", "output")]
    tables = {"word": len(words), "position": 10, "token_type": 2}
    shapes = {f"embeddings.{name}_embeddings.weight": (rows, WIDTH) for name, rows in tables.items()}
    for name, shape in (linear | {"pooler.dense": (WIDTH, WIDTH)}).items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("embeddings.LayerNorm", *norms):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    gen = generator("sentences")
    tensors = {prefix + n: torch.empty(s).normal_(0.0, 0.5, generator=gen) for n, s in shapes.items()}
    tensors[f"{prefix}embeddings.position_ids"] = torch.arange(10)[None]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**SIZES, **changes}))
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


def reference(folder, ids, pool="mean"):
    """One text, by the published formula."""
    w = {n.removeprefix("bert."): t for n, t in load_file(folder / "model.safetensors").items()}

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        y = x - x.mean(-1, keepdim=True)
        return y / (y.square().mean(-1, keepdim=True) + 1e-12).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for i in range(DEPTH):
        at = f"encoder.layer.{i}."
        q, k, v = (
            linear(f"{at}attention.self.{part}", x).unflatten(-1, (HEADS, -1)) for part in ("query", "key", "value")
        )
        heads = [(q[:, h] @ k[:, h].T / math.sqrt(WIDTH / HEADS)).softmax(-1) @ v[:, h] for h in range(HEADS)]
        x = norm(f"{at}attention.output.LayerNorm", x + linear(f"{at}attention.output.dense", torch.cat(heads, -1)))
        y = F.gelu(linear(f"{at}intermediate.dense", x))
        x = norm(f"{at}output.LayerNorm", x + linear(f"{at}output.dense", y))
    pooled = x.mean(0) if pool == "mean" else x[0]
    return pooled / pooled.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sentences") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder.load(folder)


def test_vectors_follow_the_formula(folder, encoder):
    got = encoder(TEXTS)
    assert got.shape == (len(TEXTS), WIDTH) and got.dtype == torch.float32 and encoder.width == WIDTH
    for text, row in zip(TEXTS, got, strict=True):
        ids = encoder.tokenizer([text]).ids[0]
        assert ids[0] == 2 and ids[-1] == 3
        torch.testing.assert_close(row, reference(folder, ids), atol=2e-6, rtol=0, msg=lambda m: f"{text!r}: {m}")  # noqa: B023
    torch.testing.assert_close(encoder(TEXTS, size=2), got, atol=2e-6, rtol=0)
    assert encoder([]).shape == (0, WIDTH)


def test_names_with_a_prefix_and_torch_files(folder, encoder, tmp_path):
    assert torch.equal(SentenceEncoder.load(write(tmp_path / "a", "bert."))(TEXTS), encoder(TEXTS))
    torch.save(load_file(folder / "model.safetensors"), write(tmp_path / "b") / "pytorch_model.bin")
    (tmp_path / "b" / "model.safetensors").unlink()
    assert torch.equal(SentenceEncoder.load(tmp_path / "b")(TEXTS), encoder(TEXTS))


def test_roberta(tmp_path):
    words = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, "ra", "rai", "rain"]
    made = write(tmp_path / "m", "roberta.", words, model_type="roberta", pad_token_id=1)
    (made / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json or vocab\.txt or vocab\.json missing"):
        SentenceEncoder.load(made)
    (made / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (made / "merges.txt").write_text("#version: 0.2\nr a\nra i\nrai n\n")
    encoder = SentenceEncoder.load(made)
    assert encoder.tower.cfg.kind == "roberta" and encoder.tokenizer.length == 8, "two positions are not used"
    got = encoder(["rain", "dog rain falls"])
    torch.testing.assert_close(encoder(["rain"]), got[:1], atol=2e-6, rtol=0)
    assert encoder.tokenizer(["dog rain falls"]).ids[0, -1] == 2


def test_lengths(folder, tmp_path):
    """As many tokens as there are positions, or as the model says; never what its tokenizer.json says."""
    assert SentenceEncoder.load(folder).tokenizer.length == 10
    assert SentenceEncoder.load(folder, length=5).tokenizer.length == 5
    made = write(tmp_path / "m")
    (made / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    encoder = SentenceEncoder.load(made)
    assert encoder.tokenizer(["rain " * 20]).ids.shape == (1, 7) and encoder.tokenizer.truncated == 1
    inner = encoder.tokenizer._inner
    inner.enable_truncation(4)
    inner.enable_padding(length=9)
    inner.save(str(made / "tokenizer.json"))
    again = SentenceEncoder.load(made)
    assert again.tokenizer(["rain " * 20]).ids.shape == (1, 7) and again.tokenizer(["rain"]).ids.shape == (1, 3)


def test_pooling_is_obeyed(tmp_path):
    made = write(tmp_path / "m")
    (made / "1_Pooling").mkdir()
    pooling = made / "1_Pooling" / "config.json"
    for said in ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}):
        pooling.write_text(json.dumps({"word_embedding_dimension": WIDTH, **said}))
        encoder = SentenceEncoder.load(made)
        row = encoder(["a dog"])[0]
        torch.testing.assert_close(row, reference(made, encoder.tokenizer(["a dog"]).ids[0], "cls"), atol=2e-6, rtol=0)
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}))
    with pytest.raises(WeightsError, match="pools by max and mean"):
        SentenceEncoder.load(made)
    pooling.unlink()
    (made / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(WeightsError, match="Dense layer"):
        SentenceEncoder.load(made)


def test_what_does_not_fit_is_named(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"no such folder.*all-MiniLM-L6-v2.*hub id"):
        SentenceEncoder.load(tmp_path / "nowhere")
    for name, message in (("vocab.txt", r"tokenizer\.json or vocab\.txt"), ("config.json", r"config\.json missing")):
        made = shutil.copytree(folder, tmp_path / name)
        (made / name).unlink()
        with pytest.raises(WeightsError, match=message):
            SentenceEncoder.load(made)
    for changes, message in (
        ({"model_type": "mpnet"}, 'only "bert" and "roberta"'),
        ({"hidden_act": "relu"}, "not BERT's"),
        ({"num_attention_heads": 3}, "multiple of heads=3"),
    ):
        with pytest.raises(WeightsError, match=message):
            SentenceEncoder.load(write(tmp_path / "odd", **changes))
    made = write(tmp_path / "more")
    (made / "vocab.txt").write_text("\n".join([*WORDS, "cat"]))
    with pytest.raises(WeightsError, match="14 tokens, the weights 13"):
        SentenceEncoder.load(made)
    (made / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        SentenceEncoder.load(made)


def test_from_the_hub(folder, encoder, monkeypatch):
    def fetch(repository, file="model.safetensors"):
        assert repository == "owner/mini"
        if not (folder / file).is_file():
            raise WeightsError(f"{repository}: the hub has no {file!r} under this name. Check the spelling.")
        return folder / file

    monkeypatch.setattr(hub, "fetch", fetch)
    for name in ("owner/mini", "hf-hub:owner/mini"):
        assert SentenceEncoder.load(name).id == encoder.id


# --- the cache


@pytest.fixture
def counting(encoder, monkeypatch):
    """What encoders are asked from here on; parts hold two texts."""
    monkeypatch.setattr(sentence_cache, "PART", 2)
    asked = []
    call = SentenceEncoder.__call__
    monkeypatch.setattr(SentenceEncoder, "__call__", lambda self, texts: asked.extend(texts) or call(self, texts))
    return asked


def test_each_caption_once(encoder, counting, tmp_path):
    want = encoder(TEXTS)
    counting.clear()
    order = [3, 0, 0, 1, 3, 2, 4]
    told = []
    got = sentence_cache.vectors(encoder, [TEXTS[i] for i in order], tmp_path, lambda *at: told.append(at))
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
    torch.testing.assert_close(got, want[order], atol=2e-6, rtol=0)
    assert sorted(counting) == sorted(TEXTS), "each once"
    counting.clear()
    again = sentence_cache.vectors(encoder, TEXTS[::-1], tmp_path, lambda *at: told.append(at))
    assert not counting and len(told) == 4 and torch.equal(again, got[[order.index(i) for i in (4, 3, 2, 1, 0)]])
    sentence_cache.vectors(encoder, ["rain", *TEXTS], tmp_path)
    assert counting == ["rain"]
    assert sentence_cache.vectors(encoder, [], tmp_path).shape == (0, WIDTH)
    files = sorted(tmp_path.rglob("*"))
    assert {f.suffix for f in files if f.is_file()} == {".safetensors"}, "nothing half-written is left"


def test_a_stopped_run_loses_one_part(encoder, counting, tmp_path, monkeypatch):
    write = sentence_cache.write
    monkeypatch.setattr(sentence_cache, "write", lambda *a: write(*a) if len(counting) < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sentence_cache.vectors(encoder, TEXTS, tmp_path)
    monkeypatch.setattr(sentence_cache, "write", write)
    counting.clear()
    sentence_cache.vectors(encoder, TEXTS, tmp_path)
    assert counting == TEXTS[2:]


def test_every_model_has_its_own(encoder, folder, counting, tmp_path):
    sentence_cache.vectors(encoder, TEXTS, tmp_path / "cache")
    counting.clear()
    shorter = SentenceEncoder.load(folder, length=5)
    assert shorter.id != encoder.id and SentenceEncoder.load(folder).id == encoder.id
    sentence_cache.vectors(shorter, TEXTS, tmp_path / "cache")
    assert sorted(counting) == sorted(TEXTS)
    other = SentenceEncoder.load(write(tmp_path / "m", layer_norm_eps=1e-3))
    assert other.id not in (encoder.id, shorter.id)


def test_damage_is_named(encoder, tmp_path):
    sentence_cache.vectors(encoder, TEXTS, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    for content in (path.read_bytes()[:-7], b"", b"junk"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a file of kept vectors.*Delete it"):
            sentence_cache.vectors(encoder, TEXTS, tmp_path)
