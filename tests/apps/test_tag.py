"""`otic tag` and `otic similarity`: what they print and write, and what they do with files they cannot read."""

import csv
import json

import pytest
import soundfile

from otic.apps.cli import main
from otic.audio.frontend import FrontendConfig, htsat
from otic.core.seeds import generator, rng
from otic.inference import tagging
from otic.models import two_tower
from otic.models.heads import Head, HeadConfig
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import TwoTower, TwoTowerConfig
from otic.models.vit import ViT, ViTConfig
from otic.weights import store


@pytest.fixture(scope="module")
def encoder():
    return ViT(ViTConfig(width=16, depth=1, heads=2), generator("cli tag"))


@pytest.fixture(scope="module")
def words(tmp_path_factory, encoder):
    text = TextConfig(vocab=0, positions=80, width=16, depth=1, heads=2)
    towers = TwoTower(encoder, TwoTowerConfig(text=text, dim=8), Tokenizer.plain(), generator("cli towers"))
    path = tmp_path_factory.mktemp("words") / "model.safetensors"
    store.save(path, encoder, FrontendConfig(), {"name": "words"}, *two_tower.to_file(towers))
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, encoder):
    head = Head(16, HeadConfig(classes=2), generator("cli head"))
    path = tmp_path_factory.mktemp("tuned") / "model.safetensors"
    extra = {f"head.{n}": t for n, t in head.state_dict().items()}
    said = {"head": {"classes": 2}, "classes": ["dog", "rain"], "loss": "bce"}
    store.save(path, encoder, FrontendConfig(), {"name": "tuned"}, extra, said)
    return path


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng("tag", name).standard_normal(56000), 16000)
    return folder


@pytest.fixture
def otic(capsys):
    def call(*args):
        code = main([str(a) for a in args])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_the_pace_counts_what_comes_before_the_first_answer(otic, words, sounds, monkeypatch):
    seen = []
    monkeypatch.setattr("otic.apps.progress.Progress.__call__", lambda self, done, total: seen.append((done, total)))
    assert otic("tag", words, sounds, "--labels", "dog,rain")[0] == 0
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_ranks_with_relative_scores(otic, words, sounds):
    code, out, _ = otic("tag", words, sounds, "--labels", "dog,rain", "--labels", "siren", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0 and document["labels"] == ["dog", "rain", "siren"] and document["failed"] == []
    for one in document["files"]:
        tags = one["tags"]
        assert [t["rank"] for t in tags] == [1, 2, 3] and tags[0]["relative"] == 1
        assert sum(t["score"] for t in tags) == pytest.approx(1) and tags[1]["score"] <= tags[0]["score"]
    code, out, _ = otic("tag", words, sounds / "a.wav", "--labels", "dog,rain", "--top", "1")
    assert code == 0 and out.splitlines()[0].split() == ["file", "rank", "label", "score", "relative"]
    assert len(out.splitlines()) == 2


def test_a_timeline_has_onsets_and_offsets(otic, words, sounds, tmp_path):
    args = ("tag", words, sounds, "--labels", "dog,rain", "--timeline", "--quiet")
    assert otic(*args, "--out", tmp_path / "t.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert list(rows[0]) == ["file", "onset", "offset", "label", "score"]
    assert float(rows[0]["onset"]) == 0 and float(rows[-1]["offset"]) == 3.5
    assert otic(*args, "--out", tmp_path / "tracks", "--format", "audacity")[0] == 0
    for name in ("a", "b"):
        lines = (tmp_path / "tracks" / f"{name}.wav.txt").read_text().splitlines()
        assert lines[0].startswith("0.000000\t") and lines[-1].split("\t")[1] == "3.500000"
        assert {line.split("\t")[2] for line in lines} <= {"dog", "rain"}
    assert otic(*args, "--out", tmp_path / "t.json")[0] == 0
    assert json.loads((tmp_path / "t.json").read_text())["files"][0]["spans"][0]["onset"] == 0


def test_a_timeline_without_a_span_says_why(otic, words, sounds):
    args = ("tag", words, sounds / "a.wav", "--labels", "dog,rain", "--timeline", "--threshold")
    said = "no label reaches the threshold"
    assert said in otic(*args, "1")[2] and said not in otic(*args, "0.1")[2]


def test_own_classes_and_one_label_track_on_stdout(otic, tuned, sounds):
    code, out, _ = otic("tag", tuned, sounds / "a.wav", "--format", "audacity", "--top", "1", "--quiet")
    assert code == 0 and out.startswith("0.000000\t3.500000\t") and out.count("\n") == 1
    assert json.loads(otic("tag", tuned, sounds / "a.wav", "--json")[1])["multi"] is True


def test_bad_files_are_listed_and_the_code_is_1(otic, words, sounds):
    (sounds / "bad.wav").write_bytes(b"no sound")
    code, out, err = otic("tag", words, sounds, "--labels", "dog", "--json", "--quiet")
    document = json.loads(out)
    assert code == 1 and len(document["files"]) == 2 and "bad.wav" in err
    assert [f["file"] for f in document["failed"]] == [str(sounds / "bad.wav")]
    assert otic("tag", words, sounds / "bad.wav", "--labels", "dog", "--quiet")[0] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--labels", "dog", "--out", "x.xml"], "x.xml: which format"),
        (["--labels", "dog", "--prompt", "sond"], "Did you mean 'sound'"),
        ([], "words: it has no classes of its own"),
        (["--labels", "dog", "--tagger"], "no tagging head"),
        (["--labels", "dog", "--format", "audacity"], "2 label tracks: name a folder"),
        (["--labels", "dog", "--set", "tokns=3"], "Did you mean 'tokens'"),
        (["--labels", "dog,rain", "--top", "0"], "top=0: ask for one label"),
        (["--labels", "dog,rain", "--threshold", "0.5"], "threshold: only timelines have one"),
        (["--labels", "dog,rain", "--hop", "1"], "hop: only timelines have one"),
        (["--labels", " , "], "name at least one"),
        (["--labels", "dog,rain", "--timeline", "--set", "window=1"], "--set window=1: naming sounds settles that"),
        (["--labels", "dog,rain", "--set", "pool=cls"], "--set pool=cls: naming sounds settles that itself"),
    ],
)
def test_mistakes_are_one_line(otic, words, sounds, more, message):
    code, out, err = otic("tag", words, sounds, "--quiet", *more)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


def test_files_of_one_name_keep_their_tracks_apart(otic, words, sounds, tmp_path):
    for folder in ("x", "y"):
        (sounds / folder).mkdir()
        (sounds / folder / "same.wav").write_bytes((sounds / "a.wav").read_bytes())
    args = ("--labels", "dog,rain", "--format", "audacity", "--out", tmp_path / "tracks", "--quiet")
    assert otic("tag", words, sounds / "x", sounds / "y", *args)[0] == 0
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.txt")) == [
        "tracks/x/same.wav.txt",
        "tracks/y/same.wav.txt",
    ]


def test_an_interrupt_keeps_what_was_found(otic, words, sounds, tmp_path, monkeypatch):
    whole = tagging.tag

    def one_and_no_more(*args, **kwargs):
        yield next(whole(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(tagging, "tag", one_and_no_more)
    args = ("tag", words, sounds, "--labels", "dog,rain", "--quiet")
    code, out, err = otic(*args, "--out", tmp_path / "t.csv")
    assert code == 130 and "interrupted after 1 of 2 files" in err and "t.csv: 1 file" in out
    assert {row["file"] for row in csv.DictReader((tmp_path / "t.csv").open())} == {str(sounds / "a.wav")}
    assert len(json.loads(otic(*args, "--json")[1])["files"]) == 1


def test_a_sound_in_the_models_place_is_told(otic, words, sounds):
    code, _, err = otic("tag", sounds / "a.wav", words, "--labels", "dog,rain")
    assert code == 2 and "a.wav: a sound, not a model" in err


def test_one_label_alone_is_no_answer(otic, words, sounds):
    said = "one label alone always scores 1"
    assert said in otic("tag", words, sounds / "a.wav", "--labels", "dog")[2]
    assert said not in otic("tag", words, sounds / "a.wav", "--labels", "dog", "--multi")[2]


def test_similarity(otic, words, sounds):
    args = (words, sounds / "a.wav", sounds / "b.wav", "a dog barks", sounds / "a.wav")
    code, out, _ = otic("similarity", *args, "--json")
    document = json.loads(out)
    assert code == 0 and [o["rank"] for o in document["others"]] == [1, 2, 3]
    assert document["others"][0]["item"].endswith("a.wav") and document["others"][0]["cosine"] == pytest.approx(1)
    assert {o["item"]: o["kind"] for o in document["others"]}["a dog barks"] == "text"
    assert otic("similarity", *args)[1].splitlines()[0].split()[:3] == ["rank", "cosine", "kind"]
    assert (
        document["kind"] == "audio" and "compared with the text a dog" in otic("similarity", words, "a dog", "rain")[1]
    )
    for odd, message in (("", "an empty text"), (str(sounds), "a folder")):
        code, out, err = otic("similarity", words, "a dog", odd, "rain")
        assert code == 1 and message in err and not err.startswith(":") and "rain" in out
    code, out, err = otic("similarity", words, "a dog", sounds / "gone.wav", sounds / "a.wav", "--json")
    assert code == 1 and "gone.wav" in err and len(json.loads(out)["others"]) == 1


def test_similarity_keeps_its_lines(otic, words):
    """A text may be long, or of several lines; a table has one line for each."""
    code, out, _ = otic("similarity", words, "a\tdog\nbarks", "two\nlines", "word " * 2000)
    rows = out.splitlines()
    assert code == 0 and len(rows) == 3 and max(map(len, rows)) < 120
    assert rows[0].endswith("text a dog barks") and any(row.endswith("two lines") for row in rows)


def test_a_folders_name_is_not_taken_for_words(otic, words, sounds, monkeypatch):
    monkeypatch.chdir(sounds.parent)
    code, out, err = otic("similarity", words, "a dog", sounds.name, "rain")
    assert code == 1 and f"{sounds.name}: a folder" in err and f"({sounds.name}/*)" in err and "rain" in out
    assert f'"a sound of {sounds.name}"' in err
    code, _, err = otic("similarity", words, sounds.name, "rain")
    assert code == 2 and "a folder" in err
    assert otic("similarity", words, f"a sound of {sounds.name}", "rain")[0] == 0


def test_similarity_of_sounds_needs_no_words(otic, tuned, sounds):
    assert otic("similarity", tuned, sounds / "a.wav", sounds / "b.wav")[0] == 0
    code, _, err = otic("similarity", tuned, sounds / "a.wav", "a dog")
    assert code == 2 and "knows sound alone" in err


def test_info_shows_the_towers_and_what_the_model_hears(otic, words, tuned, encoder):
    card = json.loads(otic("info", words, "--json")[1])
    assert card["towers"]["dim"] == 8 and card["towers"]["tokenizer"].endswith("tokens, in the file")
    assert card["towers"]["text"]["kind"] == "decoder" and card["towers"]["scale"] == pytest.approx(1 / 0.07, abs=1e-3)
    assert card["hears"] == "128 kaldi bands of 16000 Hz waves, 20.0-8000.0 Hz; a frame every 10 ms, 25 ms long"
    text = otic("info", tuned)[1]
    assert "towers" not in text and "classes: dog, rain" in text and "kind: ViT" in text


def test_info_tells_the_true_filterbank(otic, encoder, tmp_path):
    store.save(tmp_path / "m.safetensors", ViT(ViTConfig(width=16, depth=1, heads=2, mels=64)), htsat(), {"name": "x"})
    said = json.loads(otic("info", tmp_path / "m.safetensors", "--json")[1])["hears"]
    assert "68.9-19293.8 Hz (built for 32000 Hz: 50-14000 Hz)" in said and "every 7.256 ms, 23.22 ms long" in said
