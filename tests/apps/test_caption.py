"""From a file of tasks to answers in words, by the commands that a user types."""

import json

import numpy as np
import pytest
import soundfile

from otic.apps.caption import caption
from otic.apps.cli import main
from otic.core.seeds import rng
from otic.data.source import open_source

TASKS = """
temperature: 2
tasks:
  - {data: "synth:corpus?clips=40", prompt: "what is this?", target: "a {label}"}
  - {data: "synth:corpus?clips=40&seed=1", prompt: "describe the sound", target: caption, weight: 0.5}
"""
SMALL = (
    "encoder.width=48", "encoder.depth=2", "encoder.heads=2", "objective.captioner.text.width=48",
    "objective.captioner.text.depth=1", "objective.captioner.text.heads=2", "objective.captioner.mapper.heads=2",
    "objective.captioner.mapper.depth=1", "objective.vocabulary=400", "batch_size=8", "crop_seconds=2.095",
    "frames=208", "inference.layers=[]", "train.save_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    settings = [word for setting in SMALL for word in ("--set", setting)]
    args = ["pretrain", "caption_tiny", "--data", str(folder / "tasks.yaml"), "--out", str(folder / "run"), "--quiet"]
    assert main([*args, "--steps", "4", *settings]) == 0
    return folder / "run"


@pytest.fixture
def sounds(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 5.0)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng(name).standard_normal(round(16000 * seconds)), 16000)
    return tmp_path


def test_a_run_learns_from_tasks_and_says_so(run):
    from otic.weights import store

    loaded = store.load(run / "model.safetensors")
    assert loaded.card["labels_used"] and loaded.card["objective"] == "caption"
    assert loaded.extra_config["captioner"]["tokenizer"] and any(n.startswith("captioner.mapper") for n in loaded.extra)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert np.isfinite(losses).all()


def test_its_card_says_that_it_writes(run, capsys):
    assert main(["info", str(run)]) == 0
    assert "\nwrites: texts (otic caption): 1 blocks of width 48, " in capsys.readouterr().out


def test_the_command_writes_and_chooses(run, sounds, capsys):
    assert main(["caption", str(run), str(sounds), "--prompt", "what is this?", "--longest", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    spans = [(c["start"], c["end"]) for c in found["captions"]]
    assert spans[0] == (0.0, 1.0) and spans[1][0] == 0.0 and len(spans) == 4 and spans[-1][1] == 5.0
    assert all(len(c["texts"]) == len(c["scores"]) == 4 and c["text"] == c["texts"][0] for c in found["captions"])
    assert main(["caption", str(run), str(sounds), "--options", "a bell, rain,a bell", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["captions"]) == 2 and found["options"] == ["a bell", "rain"]
    assert all(
        sum(c["scores"]) == pytest.approx(1) and set(c["texts"]) == {"a bell", "rain"} for c in found["captions"]
    )
    assert not any("end" in c for c in found["captions"]), "the answer is to the whole file"


def test_a_choice_needs_two_answers(run, sounds, capsys):
    assert main(["caption", str(run), str(sounds), "--options", " , "]) == 2
    assert "--options is missing: name at least one" in capsys.readouterr().err
    assert main(["caption", str(run), str(sounds), "--options", "rain"]) == 0
    assert "one answer alone" in capsys.readouterr().err


def test_bad_files_are_named(run, sounds, capsys):
    (sounds / "bad.wav").write_bytes(b"no sound")
    assert main(["caption", str(run), str(sounds), "--beams", "1", "--longest", "3"]) == 1
    out, err = capsys.readouterr()
    assert "bad.wav" in err and len(out.splitlines()) == 4
    assert main(["caption", str(run), str(sounds / "bad.wav")]) == 2
    assert caption(run, sounds / "bad.wav", options=["x"]).failed[0].failed


def test_models_without_words_say_what_to_do(run, sounds, tmp_path, capsys):
    from otic.weights import store

    loaded = store.load(run / "model.safetensors")
    store.save(tmp_path / "deaf.safetensors", loaded.encoder, loaded.frontend, loaded.card)
    assert main(["caption", str(tmp_path / "deaf.safetensors"), str(sounds)]) == 2
    assert "this model cannot write" in capsys.readouterr().err


def test_other_tasks_are_another_run(run, capsys):
    path = run.parent / "tasks.yaml"
    settings = [word for setting in SMALL for word in ("--set", setting)]
    args = ["pretrain", "caption_tiny", "--data", str(path), "--out", str(run), "--quiet", "--steps", "4", *settings]
    assert main(args) == 0, "finished: nothing to do"
    assert f"next: otic caption {run} AUDIO" in capsys.readouterr().out
    path.write_text(TASKS.replace("temperature: 2", "temperature: 1").replace("weight: 0.5", "weight: 0.6"))
    try:
        assert main(args) == 2
    finally:
        path.write_text(TASKS)


def test_the_tasks_of_the_example_are_a_source(tmp_path):
    (tmp_path / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    source = open_source(tmp_path / "tasks.yaml")
    assert len(source) == 80 and {row.weight for row in source.rows} == {1.0, 2.0}
