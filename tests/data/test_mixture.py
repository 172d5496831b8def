"""Mixtures of tasks: what they ask, what they want to hear, how often each comes; the same for the same seed."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_for_tests import RATE, Numbers, tone, write_csv

from otic.core.errors import DataError
from otic.data.crops import Crops, batches
from otic.data.mixture import read_mixture, repeats
from otic.data.source import open_source

TASKS = """
temperature: 2
tasks:
  - data: animals
    name: animal
    prompt: what is this sound?
    target: a {label}
    where: fold!=5
    names: {cry: crying baby}
  - {data: [voices], prompt: "who is speaking?", target: "{label}", label_column: speaker}
  - {data: voices, prompt: describe the sound, target: caption}
"""


@pytest.fixture
def folder(tmp_path):
    animals = [{"file": f"{k}.wav", "label": "cry" if k % 2 else "sea_lion", "fold": k} for k in range(1, 6)]
    for row in animals:
        tone(tmp_path / "animals" / row["file"], 0.1)
    write_csv(tmp_path / "animals" / "metadata.csv", animals)
    tone(tmp_path / "voices" / "v.wav", 0.1)
    row = {"file": "v.wav", "speaker": "theo", "caption_1": "a man talks", "caption_2": "speech", "hard_negative": "x"}
    write_csv(tmp_path / "voices" / "metadata.csv", [row])
    (tmp_path / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    return tmp_path


def test_rows_carry_question_answer_and_weight(folder):
    source = open_source(folder / "tasks.yaml")
    assert source.name == "tasks" and len(source) == 6
    told = [(row.id, row.extra["prompt"], row.captions, row.weight) for row in source.rows]
    assert told[0] == ("animal/1.wav", "what is this sound?", ("a crying baby",), 1.0)
    assert told[1][2] == ("a sea lion",)
    assert told[4] == ("voices/v.wav", "who is speaking?", ("theo",), 2.0)  # shares 2 : 1 : 1 of 4, 1 and 1 clips
    assert told[5] == ("voices#2/v.wav", "describe the sound", ("a man talks", "speech"), 2.0)
    assert len(source.read(5, RATE)) == source.probe(5).seconds * RATE == 0.1 * RATE == source.length(5) * RATE
    assert len(open_source([folder / "tasks.yaml", folder / "voices"])) == 7


def test_a_condition_for_all_tasks(folder):
    (folder / "one.yaml").write_text("[{data: animals}]", encoding="utf-8")
    assert [row.id for row in open_source(folder / "one.yaml", where=["fold=3"]).rows] == ["animals/3.wav"]


def test_each_task_is_learned_from_by_its_own_split(folder):
    """One task's split `train` leaves out nothing of another's, and shares are of what is left."""
    animals = [{"file": f"{k}.wav", "label": "cry", "split": "train" if k < 4 else "test"} for k in range(1, 6)]
    write_csv(folder / "animals" / "metadata.csv", animals)
    tasks = "[{data: animals}, {data: animals, where: split=test}, {data: voices, target: caption}]"
    tasks = f"{{temperature: 1000000, tasks: {tasks}}}"
    (folder / "own.yaml").write_text(tasks, encoding="utf-8")
    rows = open_source(folder / "own.yaml", learning=True).rows
    share = Counter()
    for row in rows:
        share[row.id.split("/")[0]] += row.weight
    assert len(rows) == 3 + 2 + 1 and list(share.values()) == pytest.approx([3, 3, 3], rel=1e-4)
    assert len(open_source(folder / "own.yaml")) == 5 + 2 + 1
    assert len(open_source([folder / "animals", folder / "voices"], learning=True)) == 3 + 1


def test_data_may_lie_elsewhere(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "far.yaml").write_text("{root: .., tasks: [{data: animals}]}", encoding="utf-8")
    assert len(open_source(folder / "deep" / "far.yaml")) == 4 + 1


def test_batches_carry_prompts_and_negatives(folder):
    def first(src):
        stream = batches(Crops(open_source(src), RATE, 0.05, 0), 8)
        return next(stream), stream.close()

    batch, _ = first(folder / "tasks.yaml")
    pairs = {"what is this sound?": {"a crying baby", "a sea lion"}, "who is speaking?": {"theo"}}
    pairs["describe the sound"] = {"a man talks", "speech"}
    assert len(batch.prompts) == len(batch.text) == 8
    wrong = dict(zip(batch.prompts, batch.negatives, strict=True))
    assert wrong["who is speaking?"] == "x" and wrong["what is this sound?"] == "", "whose rows have none"
    assert all(answer in pairs[prompt] for prompt, answer in zip(batch.prompts, batch.text, strict=True))
    batch, _ = first(folder / "voices")
    assert batch.prompts is None and batch.negatives == ("x",) * 8
    batch, _ = first([folder / "tasks.yaml", folder / "voices"])
    assert "" in batch.prompts, "who is asked nothing is asked nothing"


@settings(deadline=None, max_examples=40)
@given(tasks=st.lists(st.tuples(st.integers(1, 500), st.floats(0.1, 10)), min_size=1, max_size=6), t=st.floats(0.5, 10))
def test_shares_follow_the_formula(tasks, t):
    sizes, weights = zip(*tasks, strict=True)
    often = repeats(sizes, weights, t)
    assert min(often) == pytest.approx(1.0)
    total = sum(n * r for n, r in zip(sizes, often, strict=True))
    shares = [w * n ** (1 / t) for n, w in tasks]
    for n, r, share in zip(sizes, often, shares, strict=True):
        assert n * r / total == pytest.approx(share / sum(shares))


def weighted(weights, seed=0):
    from dataclasses import replace

    source = Numbers([40] * len(weights), captions=("x",))
    source.rows = [replace(row, weight=w) for row, w in zip(source.rows, weights, strict=True)]
    return Crops(source, RATE, 0.005, seed)


@settings(deadline=None, max_examples=25)
@given(weights=st.lists(st.floats(1, 5), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_an_epoch_takes_each_clip_as_often_as_its_weight(weights, seed):
    crops, total = weighted(weights, seed), sum(weights)
    epochs = [Counter(crops.take(e * len(crops) + p).clip for p in range(len(crops))) for e in range(40)]
    assert len(crops) == round(total)
    for i, weight in enumerate(weights):
        exact, counts = weight * len(crops) / total, [epoch[i] for epoch in epochs]
        assert all(abs(count - exact) < 1 + 1e-9 for count in counts)
        assert np.mean(counts) == pytest.approx(exact, abs=0.1)


def test_the_order_is_resumable_and_follows_from_the_seed():
    def ids(start, count, **options):
        stream = batches(weighted([1.0, 2.5, 1.2], options.pop("seed", 0)), 4, start=start, **options)
        out = [batch.ids for batch in itertools.islice(stream, count)]
        stream.close()
        return out

    whole = ids(0, 9)
    assert ids(5, 4, threads=1) == whole[5:] and ids(0, 9, seed=1) != whole
    shares = [ids(0, 9, rank=r, size=2) for r in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize(
    "text, message",
    [
        ("tasks: []", r"no tasks\. Expected a list"),
        ("{a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system [ls]", "cannot be read as YAML"),
        ("[3]", "task 1: 3 is no task"),
        ("[{prompt: x}]", "task 1: names no data"),
        ("[{data: animals}, {data: animals, promt: x}]", "task 2: field 'promt' is unknown. Did you mean 'prompt'"),
        ("[{data: animals, weight: 0}]", "task 1: weight=0.0: must be above 0"),
        ("{temperature: 0, tasks: [{data: animals}]}", "temperature=0.0: must be above 0"),
        ("{temprature: 1, tasks: [{data: animals}]}", "Did you mean 'temperature'"),
        ("[{data: nothing}]", "nothing: there is no such file"),
        ("[{data: tasks.yaml}]", "a mixture cannot hold another one"),
        ("[{data: animals, target: caption}]", "animals: no row has a caption"),
        ("[{data: animals, target: 'a {kind}'}]", r"animals, 1.wav: 'a \{kind\}': column 'kind' is unknown"),
        ("[{data: voices}]", r"voices, v.wav: '\{label\}': label is empty"),
        ("[{data: animals, target: 'a {label'}]", r"'a \{label': expected"),
        ("[{data: animals, where: fold=9}]", "leaves no row"),
        ("[{data: voices, label_column: speeker}]", "Did you mean 'speaker'"),
    ],
)
def test_what_is_wrong_is_named(folder, text, message):
    path = folder / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_columns_belong_to_tasks(folder):
    with pytest.raises(DataError, match="names the label and split columns of each task itself"):
        open_source(folder / "tasks.yaml", label_column="speaker")


def test_defaults(folder):
    (folder / "bare.yaml").write_text("[{data: animals, names: {0: zero, 1: 1}}]", encoding="utf-8")
    mixture = read_mixture(folder / "bare.yaml")
    assert mixture.temperature == 1.0 and mixture.tasks[0].names == {"0": "zero", "1": "1"}
