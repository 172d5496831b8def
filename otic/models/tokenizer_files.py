"""Vocabularies: trained here, or read from the files that come with published text encoders.

tokenizer.json               all in one (current Hugging Face repositories)
vocab.json, merges.txt       byte-level BPE: GPT-2, RoBERTa
vocab.txt                    WordPiece: BERT; `tokenizer_config.json` beside it may say do_lower_case
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Threads would gain little on a batch of captions, and complain on stderr whenever a data worker is forked.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from otic.core.errors import ConfigError, WeightsError

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
FILES = {
    "gpt2": "tokenizer.json, or vocab.json and merges.txt (those of hf.co/openai-community/gpt2)",
    "roberta": "tokenizer.json, or vocab.json and merges.txt (those of hf.co/FacebookAI/roberta-base)",
    "bert": "tokenizer.json or vocab.txt (that of hf.co/google-bert/bert-base-uncased)",
}
SPECIAL = {
    "gpt2": {"end": "<|endoftext|>", "pad": "!", "lone": "Ġ"},
    "roberta": {"start": "<s>", "end": "</s>", "pad": "<pad>", "unknown": "<unk>"},
    "bert": {"start": "[CLS]", "end": "[SEP]", "pad": "[PAD]", "unknown": "[UNK]"},
}


def train_bpe(texts: Iterable[str], size: int, special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Byte-level BPE; `special` come first and are known to the vocabulary alone, so that no text becomes them."""
    if size < len(BYTES) + len(special):
        raise ConfigError(f"a tokenizer of size={size} lacks room for the bytes: {len(BYTES) + len(special)} at least.")
    inner = _byte_level(models.BPE(), prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=BYTES, special_tokens=list(special), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    made = json.loads(inner.to_str())["model"]
    merges = [pair(m.split(" ") if isinstance(m, str) else m) for m in made["merges"]]
    return _byte_level(models.BPE(vocab=made["vocab"], merges=merges), prefix_space=True)


def pair(parts: Sequence[str]) -> tuple[str, str]:
    left, right = parts
    return left, right


def byte_bpe(special: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Bytes alone."""
    return _byte_level(models.BPE(vocab={t: i for i, t in enumerate((*special, *BYTES))}, merges=[]), prefix_space=True)


def _byte_level(model: models.BPE, prefix_space: bool) -> tokenizers.Tokenizer:
    """`prefix_space`: a word is the same at the beginning of a text and inside."""
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    inner.decoder = decoders.ByteLevel()
    return inner


def open_folder(path: Path, kind: str, exclamation: bool) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    """The tokenizer of a folder, and the ids of its special tokens.

    Args:
        path: The folder.
        kind: Of `FILES`.
        exclamation: "!" and the end token are found in texts, as special ones.
    """
    if not path.is_dir():
        raise WeightsError(f"{path}: no such folder. A {kind} tokenizer needs {FILES[kind]}.")
    if (path / "tokenizer.json").is_file():
        inner = parse(_read(path / "tokenizer.json"), str(path / "tokenizer.json"))
    elif kind == "bert" and (path / "vocab.txt").is_file():
        inner = _wordpiece(path)
    elif kind != "bert" and (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        inner = _bpe(path)
    else:
        raise WeightsError(f"{path}: no {kind} tokenizer there. Put {FILES[kind]} into it.")
    wants, has = ("WordPiece" if kind == "bert" else "BPE"), type(inner.model).__name__
    if has != wants:
        raise WeightsError(f'{path}: a {has} tokenizer, but kind="{kind}" is {wants}. Name the kind it is of.')
    special = {role: _id(inner, token, path, kind) for role, token in SPECIAL[kind].items()}
    if exclamation:
        inner.add_special_tokens([AddedToken("!", normalized=False), AddedToken("<|endoftext|>", normalized=False)])
    return inner, special


def parse(text: str, where: str) -> tokenizers.Tokenizer:
    """A tokenizer from the text of a `tokenizer.json`."""
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise WeightsError(f"{where}: not a tokenizer that can be read ({error}). Download it again.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as text ({error}). Download it again.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: expected a JSON object. Download it again.")
    return values


def _bpe(path: Path) -> tokenizers.Tokenizer:
    lines = _read(path / "merges.txt").split("\n")
    merges = [pair(line.split(" ")) for line in lines if line.count(" ") == 1 and not line.startswith("#version")]
    vocab = _json(path / "vocab.json")
    try:
        model = models.BPE(vocab=vocab, merges=merges)
    except Exception as error:  # the library raises nothing narrower
        raise WeightsError(
            f"{path}: vocab.json and merges.txt do not belong together ({error}). Take both from one repository."
        ) from error
    return _byte_level(model, prefix_space=False)


def _wordpiece(path: Path) -> tokenizers.Tokenizer:
    words = _read(path / "vocab.txt").splitlines()
    settings = _json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    inner = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return inner


def _id(inner: tokenizers.Tokenizer, token: str, path: Path, kind: str) -> int:
    found = inner.token_to_id(token)
    if found is None:
        raise WeightsError(f"{path}: the vocabulary lacks {token!r}, so it is no {kind} tokenizer. Put {FILES[kind]}.")
    return found
