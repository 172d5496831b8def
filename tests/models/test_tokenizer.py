"""The tokenizer: its own vocabulary, and the rules of GPT-2, RoBERTa and BERT on small vocabularies made here."""

import copy
import json
import pickle
import random

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.errors import ConfigError, WeightsError
from otic.models.tokenizer import Tokenizer
from otic.models.tokenizer_files import BYTES

CAPTIONS = ["A dog barks, then rain falls.", "rain falls on a roof", "a dog howls", "Rain!", "a roof; dogs bark"] * 3


@pytest.fixture(scope="module")
def own():
    return Tokenizer.train(CAPTIONS, size=330)


def rows(tokens):
    """The real ids of each text."""
    return [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]


# --- our own


def test_trained(own):
    assert (own.pad, own.end, own.length) == (0, 1, 77) and 258 < own.size <= 330
    assert max(map(max, rows(own(CAPTIONS)))) < own.size
    assert len(rows(own(["a dog"]))[0]) < len(rows(Tokenizer.plain()(["a dog"]))[0])
    assert rows(own(["rain"])) == rows(own([" rain"])), "a word is the same at the beginning and inside"
    tokens = own(["a dog barks", "rain", ""])
    assert (tokens.ids == 0).equal(~tokens.mask), "padding at the right, and nowhere else"
    assert all(row[-1] == 1 and 1 not in row[:-1] for row in rows(tokens)) and rows(tokens)[2] == [1]
    assert tokens.ids.dtype == torch.int64 and tokens.mask.dtype == torch.bool


def test_training_is_a_function_of_the_set(own, capfd):
    """Not of the order, nor of the hash seeds, which differ each time."""
    for seed in range(8):
        mixed = random.Random(seed).sample(CAPTIONS, len(CAPTIONS))
        assert Tokenizer.train(iter(mixed), size=330).to_dict() == own.to_dict()
    assert capfd.readouterr() == ("", ""), "no progress bar"


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(texts):
    own = Tokenizer.train(CAPTIONS, size=330, length=300)
    for tokenizer in (own, Tokenizer.plain(length=300)):
        tokens = tokenizer(texts)
        assert len(tokens.ids) == len(texts) and tokens.ids.shape == tokens.mask.shape
        for text, ids in zip(texts, tokens.ids, strict=True):
            assert tokenizer.decode(ids) == text.removeprefix(" ")


def test_no_text_spells_a_special_token(own):
    spelled = ["‹pad›", "‹end›", "<|endoftext|>", "‹end› a ‹end›"] * 4
    for tokenizer in (own, Tokenizer.train(spelled, size=400), Tokenizer.plain()):
        for text, row in zip(spelled, rows(tokenizer(spelled)), strict=True):
            assert row[-1] == 1 and not {0, 1} & set(row[:-1])
            assert tokenizer.decode(row) == text


def test_too_long_keeps_the_end():
    own = Tokenizer.train(CAPTIONS, size=330, length=6)
    tokens = own(["a dog", "rain falls on a roof, then a dog howls", "xyz" * 50])
    assert tokens.ids.shape == (3, 6) and own.truncated == 2
    assert all(row[-1] == 1 for row in rows(tokens))
    full = rows(Tokenizer.train(CAPTIONS, size=330)(["rain falls on a roof, then a dog howls"]))[0]
    assert rows(tokens)[1] == [*full[:5], 1]


def test_bytes_alone():
    plain = Tokenizer.plain()
    assert plain.size == 258
    assert len(rows(plain(["é"]))[0]) == 4  # a space, two bytes, end
    assert plain.decode(plain(["\ud800"]).ids[0]) == "?", "what UTF-8 cannot hold"


def test_one_text_and_none(own):
    assert torch.equal(own("a dog").ids, own(["a dog"]).ids)
    assert own([]).ids.shape == (0, 1)


def test_kept_as_json(own):
    for tokenizer in (own, Tokenizer.plain(length=9)):
        again = Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.to_dict() == tokenizer.to_dict() and again.rules == tokenizer.rules
        assert rows(again(CAPTIONS)) == rows(tokenizer(CAPTIONS))
    with pytest.raises(WeightsError, match="written by to_dict"):
        Tokenizer.from_dict({"ids": 3})
    with pytest.raises(WeightsError, match="not a tokenizer"):
        Tokenizer.from_dict({"rules": {}, "tokenizer": {}})


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="258 at least"):
        Tokenizer.train(CAPTIONS, size=100)
    with pytest.raises(ConfigError, match="4 tokens at least"):
        Tokenizer.plain(length=2)


# --- published ones


def byte_vocab(words, first=()):
    """`first`, the bytes ("!" is 0 with GPT-2, a lone space 220), then the words that merges make."""
    order = sorted(BYTES, key=lambda c: (c != "!", c == "Ġ", c))
    names, merges = [*first, *order], []
    for word in words:
        for i in range(2, len(word) + 1):
            if word[:i] not in names:
                names.append(word[:i])
                merges.append(f"{word[: i - 1]} {word[i - 1]}")
    return names, merges


def write_bpe(folder, names, merges):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return folder


def write_json(folder, source, special, **more):
    """The same in one file, with truncation, padding and specials switched on, as published ones have."""
    inner = tokenizers.Tokenizer.from_str(json.dumps(Tokenizer.from_folder(source, **more).to_dict()["tokenizer"]))
    inner.add_special_tokens(list(special))
    inner.enable_truncation(3)
    inner.enable_padding(length=5)
    start, end = special
    inner.post_processor = tokenizers.processors.BertProcessing(
        (end, inner.token_to_id(end)), (start, inner.token_to_id(start))
    )
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    names, merges = byte_vocab(["!!", "Ġdog", "Ġ!", "rain", "ĠĠ"])
    return write_bpe(tmp_path_factory.mktemp("gpt2"), [*names, "<|endoftext|>"], merges)


def named(tokenizer, text):
    """A text's tokens by name."""
    return [tokenizer._inner.id_to_token(i) for i in rows(tokenizer([text]))[0]]


def test_gpt2(gpt2):
    tokenizer = Tokenizer.from_folder(gpt2)
    assert tokenizer.pad == 0 and tokenizer.end == tokenizer.size - 1
    end = "<|endoftext|>"
    assert named(tokenizer, "rain dog") == ["rain", "Ġdog", "Ġ", end], "a lone space before the end"
    assert named(tokenizer, "Rain")[0] == "R", "no lower-casing, no token in front"
    assert named(tokenizer, "") == ["Ġ", end]
    assert named(tokenizer, "rain ") == ["rain", "ĠĠ", end], "it joins spaces that are there"
    assert named(tokenizer, "dog!!") == ["d", "o", "g", "!!", "Ġ", end]
    assert named(tokenizer, "rain !") == ["rain", "Ġ!", "Ġ", end]
    assert end not in named(tokenizer, "a <|endoftext|> b")[:-1]
    tokens = tokenizer(["rain dog", "rain! dog"])
    assert tokens.mask.sum(1).tolist() == [4, 5] and tokens.ids[1, 1] == 0 and tokens.mask[1, 1]
    assert tokenizer.decode(rows(tokens)[1]) == "rain! dog"


def test_gpt2_as_msclap_does_it(gpt2):
    """ "!" is the padding, so it is cut out of the text before anything else."""
    tokenizer, end = Tokenizer.from_folder(gpt2, length=12, compat=("exclamation", "fixed")), "<|endoftext|>"
    assert named(tokenizer, "rain!!") == ["rain", "!", "!", "Ġ", end]
    assert named(tokenizer, "rain !") == ["rain", "Ġ", "!", "Ġ", end]
    assert named(tokenizer, "rain<|endoftext|>rain") == ["rain", end, "rain", "Ġ", end]
    tokens = tokenizer(["rain! dog"])
    assert tokens.ids.shape == (1, 12) and tokens.mask.sum() == 5
    count_nonzero = (tokens.ids != tokenizer.pad).sum(1) - 1
    assert tokens.ids[0, count_nonzero] != tokenizer.end, "upstream pools one token too early"
    with pytest.raises(ConfigError, match=r"over 12: .*refuses"):
        tokenizer(["rain", "xyz" * 9])
    again = Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert rows(again(["rain!! dog !"])) == rows(tokenizer(["rain!! dog !"]))


def test_gpt2_too_long_keeps_space_and_end(gpt2):
    tokenizer = Tokenizer.from_folder(gpt2, length=5)
    assert named(tokenizer, "rain dog dog dog dog") == ["rain", "Ġdog", "Ġdog", "Ġ", "<|endoftext|>"]
    assert named(tokenizer, "rain dog dog") == ["rain", "Ġdog", "Ġdog", "Ġ", "<|endoftext|>"]
    assert tokenizer.truncated == 1


ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")


def test_roberta(tmp_path):
    names, merges = byte_vocab(["Ġdog", "rain"], ROBERTA)
    folder = write_bpe(tmp_path / "files", [*names, "<mask>"], merges)
    one = write_json(tmp_path / "one", folder, ("<s>", "</s>"), kind="roberta")
    for path in (folder, one):
        tokenizer = Tokenizer.from_folder(path, kind="roberta", length=6)
        assert (tokenizer.pad, tokenizer.end, tokenizer.rules.start) == (1, 2, 0)
        assert named(tokenizer, "rain dog") == ["<s>", "rain", "Ġdog", "</s>"]
        tokens = tokenizer(["rain dog", "rain" * 9, ""])
        assert tokens.ids.shape == (3, 6) and tokens.ids[0, 4:].tolist() == [1, 1] and tokenizer.truncated == 1
        assert named(tokenizer, "rain" * 9) == ["<s>", *["rain"] * 4, "</s>"] and rows(tokens)[2] == [0, 2]
        assert "</s>" not in named(Tokenizer.from_folder(path, kind="roberta"), "a</s><mask>")[:-1]
        assert tokenizer.decode(tokens.ids[0]) == "rain dog"


def test_bert(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s", "rain", "!", ",", "e", "[", "]", "cls"]
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    one = write_json(tmp_path / "one", folder, ("[CLS]", "[SEP]"), kind="bert")
    for path in (folder, one):
        tokenizer = Tokenizer.from_folder(path, kind="bert", length=6)
        assert (tokenizer.pad, tokenizer.end, tokenizer.rules.start, tokenizer.size) == (0, 3, 2, len(words))
        assert named(tokenizer, "Rain, DOGS") == ["[CLS]", "rain", ",", "dog", "##s", "[SEP]"]
        assert named(tokenizer, "É cat") == ["[CLS]", "e", "[UNK]", "[SEP]"], "accents go, unknown words stay one"
        assert named(tokenizer, "[CLS]") == ["[CLS]", "[", "cls", "]", "[SEP]"]
        assert named(tokenizer, "rain " * 9) == ["[CLS]", *["rain"] * 4, "[SEP]"]
        tokens = tokenizer(["rain dogs!", "dog"])
        assert tokens.ids[1].tolist() == [2, 5, 3, 0, 0, 0] and tokens.mask[1].tolist() == [True] * 3 + [False] * 3
        assert tokenizer.decode(tokens.ids[0]) == "rain dogs!"
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert named(Tokenizer.from_folder(folder, kind="bert"), "Rain") == ["[CLS]", "[UNK]", "[SEP]"]


def test_copies_follow_the_same_rules(gpt2, tmp_path):
    one = Tokenizer.from_folder(write_json(tmp_path / "one", gpt2, ("<|endoftext|>", "<|endoftext|>")))
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert rows(again(["a <|endoftext|> b"])) == rows(one(["a <|endoftext|> b"]))


def test_gpt2_in_one_file(gpt2, tmp_path):
    one = write_json(tmp_path / "one", gpt2, ("<|endoftext|>", "<|endoftext|>"))
    for text in ("rain dog!!", "", "a <|endoftext|> b", "rain " * 60):
        assert rows(Tokenizer.from_folder(one)([text])) == rows(Tokenizer.from_folder(gpt2)([text]))
        flags = ("exclamation",)
        old = rows(Tokenizer.from_folder(gpt2, compat=flags)([text]))
        assert rows(Tokenizer.from_folder(one, compat=flags)([text])) == old


def test_what_is_missing_is_named(gpt2, tmp_path):
    for kind, files in (("gpt2", "merges.txt"), ("roberta", "roberta-base"), ("bert", "vocab.txt")):
        with pytest.raises(WeightsError, match=f"no such folder.*{files}"):
            Tokenizer.from_folder(tmp_path / "nowhere", kind=kind)
        with pytest.raises(WeightsError, match=f"no {kind} tokenizer there.*{files}"):
            Tokenizer.from_folder(tmp_path, kind=kind)
    with pytest.raises(WeightsError, match="lacks '<s>', so it is no roberta"):
        Tokenizer.from_folder(gpt2, kind="roberta")
    one = write_json(tmp_path / "one", gpt2, ("<|endoftext|>", "<|endoftext|>"))
    with pytest.raises(WeightsError, match=r"a BPE tokenizer.*WordPiece"):
        Tokenizer.from_folder(one, kind="bert")
    with pytest.raises(ConfigError, match="compat 'fix' is unknown; there are exclamation, fixed"):
        Tokenizer.from_folder(gpt2, compat=("fix",))
    names, merges = byte_vocab(["rain"], ROBERTA)
    with pytest.raises(ConfigError, match='needs kind="gpt2"'):
        Tokenizer.from_folder(write_bpe(tmp_path / "r", names, merges), kind="roberta", compat=("fixed",))


def test_broken_files_are_named(gpt2, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(WeightsError, match="cannot be read as text"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for vocab, message in (("[", "not JSON"), ("[]", "expected a JSON object"), ('{"a": 0}', "belong together")):
        (tmp_path / "vocab.json").write_text(vocab)
        (tmp_path / "merges.txt").write_text("r a\n")
        with pytest.raises(WeightsError, match=message):
            Tokenizer.from_folder(tmp_path)
