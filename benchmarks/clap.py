"""CLAP against transformers' ClapModel: the same random weights, the same files and texts.

Both sides read one folder that transformers wrote. `files` is the whole way from 5-second files at 44.1 kHz and texts
to joint vectors: librosa, ClapProcessor and ClapModel in one call for a batch, as their documentation has it, against
`Model.audio` and `Model.text`. `text` are ragged captions; `one text` and `one clip` have no batch to hide behind.
All of these on one thread, in processor time. `archive` is `files` for eight batches, every text another one, with as
many threads as the machine has cores, by the clock on the wall: what somebody waits for. Its last row for a size sets
our bf16 beside ClapModel as it loads, in float32.
Needs `pip install transformers==5.23.0 librosa`; otherwise it is left out. bf16 is autocast on both sides.

Both sides multiply the same matrices (we leave out padding, and tokens that nobody asks for). `products` is the share
of our time which these products take at the best rate that this processor shows for one of a base model (512 rows, 768
to 3072 channels); `at most` is what the ratio would be if we did them at that rate, and all the rest in no time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Skipped, table
from benchmarks.clock import best
from otic.core.machine import cores
from otic.core.seeds import generator, rng
from otic.inference.load import load
from otic.models.linear import FUSED, linear

HEAD = ["size", "precision", "part", "otic ms", "transformers ms", "ratio", "max difference", "products", "at most"]
CLIPS, TEXTS, RATE = 8, 16, 44100
BATCHES = 8  # of an archive
SECONDS = 4.75  # of 5, librosa makes 240,001 samples, which no longer fit twice into ten seconds: half becomes silence
WORDS = ["a dog", "rain", "glass breaks", "someone sings", "in a street", "far away", "and then", "a siren"]
TINY = {
    "text_config": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "audio_config": {"patch_embeds_hidden_size": 24, "hidden_size": 192, "num_attention_heads": [1, 2, 4, 8]},
}
Pair = tuple[str, Callable[..., Any], Callable[[], Any]]


def rows() -> list[str]:
    """Markdown: size, precision and part; our time beside the reference's, and how far the results lie apart."""
    for library in ("transformers", "librosa"):
        if importlib.util.find_spec(library) is None:
            raise Skipped(f"{library} is not installed")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            found = [row for size in ("tiny", "base") for row in compare(Path(folder) / size, size)]
    finally:
        torch.set_num_threads(threads)
    return table(HEAD, found)


def compare(folder: Path, size: str) -> Iterator[tuple[object, ...]]:
    from threadpoolctl import threadpool_limits  # librosa brings it

    theirs, processor = write(folder, {} if size == "base" else TINY)
    files, texts = sounds(folder), captions(TEXTS * BATCHES)
    rates = {"fp32": rate(torch.float32), "bf16": rate(torch.bfloat16)}
    ends: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    for precision in ("fp32", "bf16"):
        ours = load(folder / "model.safetensors", "cpu", precision, tokenizer=folder)  # type: ignore[arg-type]
        for part, mine, other in parts(ours, theirs, processor, files, texts, bf16=precision == "bf16"):
            if part == "features" and precision == "bf16":
                continue  # float32 on both sides
            off = apart(mine(), other())
            with threadpool_limits(1, user_api="blas"):  # numpy's threads, which would count twice
                fast, slow = best(mine, other, seconds=2.0)
            least = 0.0 if part == "features" else products(mine) / rates[precision]
            bound = (f"{least / fast:.0%}", f"{slow / least:.1f}x") if least else ("", "")
            yield size, precision, part, *times(fast, slow), f"{off:.1e}", *bound
        ends[precision] = mine, other  # the last part is the whole way
        yield size, precision, f"archive, {cores()} threads", *archive(mine, other), "", ""
    yield size, "bf16, fp32", f"archive, {cores()} threads", *archive(ends["bf16"][0], ends["fp32"][1]), "", ""


def archive(mine: Callable[..., Any], other: Callable[..., Any]) -> tuple[str, str, str, str]:
    """The whole way for `BATCHES` batches, all cores at work: both times, their ratio, how far the first lie apart."""
    torch.set_num_threads(cores())
    try:
        works = lambda: mine(BATCHES), lambda: [other(k) for k in range(BATCHES)]
        return *times(*best(*works, seconds=20.0, clock=time.perf_counter)), f"{apart(mine(), other()):.1e}"
    finally:
        torch.set_num_threads(1)


def apart(mine: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    """The largest difference between two results."""
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(mine, other, strict=True))


def times(fast: float, slow: float) -> tuple[str, str, str]:
    return f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}", f"{slow / fast:.1f}x"


def rate(dtype: torch.dtype) -> float:
    """Operations in a second of the best matrix product, a multiply and an add counted apart."""
    layer, x = torch.nn.Linear(768, 3072, dtype=dtype), torch.randn(512, 768).to(dtype)
    return 2 * len(x) * layer.weight.numel() / best(lambda: [linear(layer, x) for _ in range(8)], seconds=1.0)[0] * 8


def products(work: Callable[[], object]) -> float:
    """Operations of matrix products and convolutions in a call."""

    def fused(x: Any, weight: Any, *_: Any, **__: Any) -> int:
        return 2 * int(np.prod(x)) * int(weight[0])

    mapping = {torch.ops.mkldnn._linear_pointwise: fused} if FUSED else {}
    with sdpa_kernel(SDPBackend.MATH):  # what the fused kernel multiplies is counted, too
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        with counter:
            work()
    return float(counter.get_total_flops())


def parts(ours: Any, theirs: Any, processor: Any, files: list[Path], texts: list[str], *, bf16: bool) -> list[Pair]:
    """Each step alone, on equal inputs; then the whole way."""
    import librosa

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()

    def under(work: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        def run(*args: int) -> tuple[Any, ...]:
            with cast():
                made = work(*args)
            return made if isinstance(made, tuple) else (made,)

        return run

    waves = [librosa.load(f, sr=48000)[0] for f in files]
    extractor, towers = processor.feature_extractor, ours.towers
    spec = extractor(waves, sampling_rate=48000, return_tensors="pt")["input_features"]
    longer = torch.zeros(len(spec), 1, dtype=torch.bool)
    every, texts = texts, texts[:TEXTS]
    tokens = towers.tokenizer(texts)
    pooled = torch.randn(CLIPS, towers.encoder.width, generator=generator("clap"))
    said = torch.randn(len(texts), towers.text.width, generator=generator("clap", 1))

    def features() -> tuple[Any, ...]:
        return (torch.from_numpy(np.stack(ours.through(waves, ours.options, lambda s: s))),)

    def whole(batches: int = 1) -> tuple[Any, ...]:
        return torch.from_numpy(ours.audio(files * batches)), torch.from_numpy(ours.text(every[: TEXTS * batches]))

    def their_whole(batch: int = 0) -> tuple[Any, ...]:
        said = every[TEXTS * batch : TEXTS * (batch + 1)]
        heard = [librosa.load(f, sr=48000)[0] for f in files]
        given = processor(text=said, audio=heard, sampling_rate=48000, padding=True, return_tensors="pt")
        out = theirs(**given)
        return out.audio_embeds, out.text_embeds

    def their_text(texts: list[str]) -> Any:
        given = processor.tokenizer(texts, padding=True, return_tensors="pt")
        return F.normalize(theirs.text_projection(theirs.text_model(**given).pooler_output).float(), dim=-1)

    return [
        ("features", features, lambda: (extractor(waves, sampling_rate=48000, return_tensors="pt")["input_features"],)),
        ("audio tower", under(lambda: towers.encoder(spec).patches.mean(1)),
         under(lambda: theirs.audio_model(input_features=spec, is_longer=longer).pooler_output)),
        ("audio tower, one clip", under(lambda: towers.encoder(spec[:1]).patches.mean(1)),
         under(lambda: theirs.audio_model(input_features=spec[:1], is_longer=longer[:1]).pooler_output)),
        ("text tower", under(lambda: towers.text(*tokens)),
         under(lambda: theirs.text_model(tokens.ids, tokens.mask.long()).pooler_output)),
        ("heads", under(lambda: (towers.audio_head(pooled), towers.text_head(said))),
         under(lambda: (theirs.audio_projection(pooled), theirs.text_projection(said)))),
        ("text", lambda: (torch.from_numpy(ours.text(texts)),), under(lambda: their_text(texts))),
        ("one text", lambda: (torch.from_numpy(ours.text(texts[0])),), under(lambda: their_text(texts[:1]))),
        ("files", whole, under(their_whole)),
    ]  # fmt: skip


def write(folder: Path, sizes: dict[str, Any]) -> tuple[Any, Any]:
    """A random model of these sizes with all that belongs to it, as transformers saves them: (model, processor)."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizerFast

    folder.mkdir()
    vocabulary(folder)
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(**sizes)).eval()
    with torch.no_grad():  # statistics of decibels, so that the towers see what they are made for
        norm = model.audio_model.audio_encoder.batch_norm
        norm.running_mean.fill_(-50.0)
        norm.running_var.fill_(400.0)
    model.save_pretrained(folder)
    words = RobertaTokenizerFast.from_pretrained(folder)
    sound = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    processor = ClapProcessor(sound, words)
    sound.save_pretrained(folder)
    return model, processor


def vocabulary(folder: Path) -> None:
    """A small RoBERTa vocabulary, trained on the captions."""
    from tokenizers.implementations import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(captions(200), vocab_size=400, special_tokens=special, show_progress=False)
    made.save_model(str(folder))
    assert json.loads((folder / "vocab.json").read_text())["<pad>"] == 1


def captions(count: int) -> list[str]:
    """Texts of one to eight phrases, no two alike."""
    draw, found = rng("clap benchmark"), dict[str, None]()
    while len(found) < count:
        found[" ".join(draw.choice(WORDS, draw.integers(1, 9)))] = None
    return list(found)


def sounds(folder: Path) -> list[Path]:
    """Files as ESC-50 has them: mono, 16 bit, 44.1 kHz, about five seconds."""
    import soundfile

    paths = []
    for i in range(CLIPS):
        draw, t = rng("clap benchmark", i), np.arange(round(RATE * SECONDS)) / RATE
        wave = 0.02 * draw.standard_normal(len(t))
        for _ in range(6):
            wave += 0.1 * np.sin(2 * np.pi * draw.uniform(100, 6000) * t) * np.exp(-draw.uniform(0, 3) * t)
        paths.append(folder / f"{i}.wav")
        soundfile.write(paths[-1], wave, RATE)
    return paths
