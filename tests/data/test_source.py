"""Every form of SRC, the errors with their mends, and round trips of tables."""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources_for_tests import RATE, Listed, tone, write_csv

from otic.core.errors import DataError, OticWarning
from otic.data import manifests
from otic.data.rows import Row, training
from otic.data.source import open_source
from otic.evaluation.words import heard


def test_a_plain_folder_has_no_labels(tmp_path):
    for name in ("b.wav", "a.wav", "deep/er/c.flac"):
        tone(tmp_path / name)
    source = open_source(tmp_path)
    assert sorted(row.id for row in source.rows) == ["a.wav", "b.wav", "deep/er/c.flac"]
    assert source.classes == [] and source.name == tmp_path.name
    i = [row.id for row in source.rows].index("a.wav")
    assert len(source.read(i, 2 * RATE)) == RATE and source.read(i, RATE).dtype == np.float32
    assert source.length(i) == 0.5


def test_class_folders_are_labels(tmp_path):
    for name in ("dog/1.wav", "dog/2.wav", "cat/1.wav"):
        tone(tmp_path / name)
    source = open_source(str(tmp_path))
    assert {row.id: row.labels for row in source.rows} == {
        "dog/1.wav": ("dog",),
        "dog/2.wav": ("dog",),
        "cat/1.wav": ("cat",),
    }
    assert source.classes == ["cat", "dog"]
    assert [row.id for row in open_source(tmp_path, where=["label=cat"]).rows] == ["cat/1.wav"]


def test_split_folders_above_class_folders(tmp_path):
    for name in ("train/dog/1.wav", "train/cat/1.wav", "test/dog/2.wav"):
        tone(tmp_path / name)
    rows = {row.id: (row.split, row.labels) for row in open_source(tmp_path).rows}
    assert rows["test/dog/2.wav"] == ("test", ("dog",)) and rows["train/cat/1.wav"] == ("train", ("cat",))


@pytest.mark.parametrize("names", [["audio/1.wav", "audio/2.wav"], ["x.wav", "dog/1.wav", "cat/2.wav"]])
def test_folders_that_are_not_classes(tmp_path, names):
    for name in names:
        tone(tmp_path / name)
    assert open_source(tmp_path).classes == []


def test_metadata_csv(tmp_path):
    tone(tmp_path / "audio/a.wav")
    tone(tmp_path / "audio/ü.wav")
    write_csv(
        tmp_path / "metadata.csv",
        [
            {
                "file": "audio/a.wav",
                "label": "dog; rain",
                "fold": "1",
                "split": "train",
                "caption_2": "two",
                "caption_1": "one, first",
                "duration_s": "0.5",
                "speaker": "x",
            },
            {"file": "audio/ü.wav", "label": "cat", "fold": "2"},
        ],
    )
    for src in (tmp_path, tmp_path / "metadata.csv"):
        source = open_source(src)
        a, b = source.rows
        assert (a.labels, a.fold, a.split, a.seconds) == (("dog", "rain"), "1", "train", 0.5)
        assert a.captions == ("one, first", "two") and a.extra == {"speaker": "x"}
        assert (b.id, b.split, b.captions, b.seconds, b.extra) == ("audio/ü.wav", None, (), None, {})
        assert source.name == tmp_path.name
        assert len(source.read(1, RATE)) == RATE // 2


def test_hugging_face_names(tmp_path):
    tone(tmp_path / "a.wav")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.wav", "label": "x", "n": 3}) + "\n\n")
    row = open_source(tmp_path).rows[0]
    assert (row.id, row.labels, row.extra) == ("a.wav", ("x",), {"n": "3"})


def test_jsonl_with_lists_and_events(tmp_path):
    tone(tmp_path / "a.wav")
    line = {
        "file": "a.wav",
        "label": ["dog", "a;b"],
        "captions": ["one", "two"],
        "events": [[0.2, 0.3, "x"], {"onset": 0, "offset": 0.1, "label": "y"}],
        "in_test": False,
    }
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
    source = open_source(path, where=["in_test=0", "label=dog"])
    row = source.rows[0]
    assert row.labels == ("dog", "a;b") and row.captions == ("one", "two") and source.name == "some"
    assert row.events == ((0.0, 0.1, "y"), (0.2, 0.3, "x"))


def test_parquet(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    tone(tmp_path / "a.wav")
    table = pa.table(
        {"file": ["a.wav", "a.wav"], "label": [["dog"], None], "fold": [1, None], "x": [1.5, float("nan")]}
    )
    parquet.write_table(table, tmp_path / "m.parquet")
    one, two = open_source(tmp_path / "m.parquet").rows
    assert (one.id, one.labels, one.fold, one.extra) == ("a.wav", ("dog",), "1", {"x": "1.5"})
    assert (two.id, two.labels, two.fold, two.extra) == ("a.wav#2", (), None, {})


def test_one_row_for_each_event_becomes_one_row_with_events(tmp_path):
    for name in ("a.wav", "b.wav"):
        tone(tmp_path / name)
    write_csv(
        tmp_path / "metadata.csv",
        [
            {"file": "a.wav", "label": "dog", "onset": "0.3", "offset": "0.4", "fold": "1"},
            {"file": "b.wav", "label": "", "onset": "", "offset": "", "fold": "2"},
            {"file": "a.wav", "label": "cat", "onset": "0.1", "offset": "0.2", "fold": "1"},
        ],
    )
    a, b = open_source(tmp_path).rows
    assert a.events == ((0.1, 0.2, "cat"), (0.3, 0.4, "dog")) and a.labels == ("dog", "cat") and a.fold == "1"
    assert (b.events, b.labels) == ((), ())
    write_csv(tmp_path / "m.csv", [{"file": "a.wav", "event_label": "dog", "onset": "0", "offset": "0.1"}])
    assert open_source(tmp_path / "m.csv").rows[0].events == ((0.0, 0.1, "dog"),)
    told_twice = "file,label,onset,offset\na.wav,farm,,\na.wav,dog,0.3,0.4\na.wav,cat,0.1,0.2\n"
    (tmp_path / "n.csv").write_text(told_twice)
    whole, parts = open_source(tmp_path / "n.csv").rows
    assert (whole.labels, whole.events) == (("farm",), ()) and parts.events == a.events
    only = open_source(tmp_path, where=["label=cat"]).rows
    assert [row.events for row in only] == [((0.1, 0.2, "cat"),)]


def test_other_columns_as_target_and_split(tmp_path):
    tone(tmp_path / "a.wav")
    write_csv(
        tmp_path / "metadata.csv",
        [{"file": "a.wav", "label": "7", "speaker": "ann", "split": "test", "split_2": "train"}],
    )
    row = open_source(tmp_path, label_column="speaker", split_column="split_2").rows[0]
    assert (row.labels, row.split, row.extra) == (("ann",), "train", {"label": "7", "split": "test"})
    with pytest.raises(DataError, match=r"--label-column: .*Did you mean 'speaker'"):
        open_source(tmp_path, label_column="speeker")
    with pytest.raises(DataError, match="--split-column"):
        open_source(tmp_path, split_column="nothing")


def test_several_sources_stand_one_after_the_other(tmp_path):
    one, two = tmp_path / "x", tmp_path / "deep/x"
    tone(one / "a.wav")
    tone(two / "a.wav", seconds=1.0)
    source = open_source([one, two, "synth:corpus?clips=2"])
    assert [row.id for row in source.rows][:3] == ["x/a.wav", "x#2/a.wav", "corpus/corpus-0-000000"]
    assert [len(source.read(i, RATE)) for i in (0, 1)] == [RATE // 2, RATE]
    part = source.subset([1, 0])
    assert [len(part.read(i, RATE)) for i in (0, 1)] == [RATE, RATE // 2]
    assert len(open_source([one])) == 1


def test_errors_say_what_to_do(tmp_path):
    def fails(message, src, **options):
        with pytest.raises(DataError, match=message):
            open_source(src, **options)

    fails("no such file or folder", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    fails("no audio found", tmp_path / "empty")
    fails("No data given", [])
    tone(tmp_path / "a.wav")
    fails("no column 'file'.*It has: label, path", write_csv(tmp_path / "1.csv", [{"path": "a.wav", "label": "x"}]))
    (tmp_path / "3.csv").write_text("file,label\n")
    fails("has no rows", tmp_path / "3.csv")
    (tmp_path / "4.csv").write_text("file,label\na.wav,dog,barks\n")
    fails("line 2: more cells", tmp_path / "4.csv")
    fails(r"none of its 1 files exists", write_csv(tmp_path / "5.csv", [{"file": "gone.wav"}]))
    fails("Did you mean 'fold'", write_csv(tmp_path / "6.csv", [{"file": "a.wav", "fold": "1"}]), where=["folds=1"])
    fails("row 1: duration 'long'", write_csv(tmp_path / "7.csv", [{"file": "a.wav", "duration_s": "long"}]))
    fails("0 <= onset <= offset", write_csv(tmp_path / "8.csv", [{"file": "a.wav", "onset": "2", "offset": "1"}]))
    (tmp_path / "9.jsonl").write_text("{nonsense")
    fails("cannot be read as jsonl", tmp_path / "9.jsonl")
    (tmp_path / "10.parquet").write_bytes(b"not parquet")
    fails("cannot be read as parquet", tmp_path / "10.parquet")
    fails("row 2: the file column is empty", write_csv(tmp_path / "11.csv", [{"file": "a.wav", "x": "1"}, {"x": "1"}]))


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff\xfe.wav")
    tone(tmp_path / "a.wav").rename(tmp_path / name)
    source = open_source(tmp_path)
    assert [row.id for row in source.rows] == [name] and len(source.read(0, RATE)) == RATE // 2


WORD = st.text(
    st.characters(exclude_characters=';#"\r\n\x00', exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]),
    min_size=1,
    max_size=8,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"file": WORD, "label": st.lists(WORD, max_size=3, unique=True)},
        optional={"fold": WORD, "split": WORD, "caption": WORD, "speaker": WORD},
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row["file"],
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_csv_and_jsonl_and_parquet_say_the_same(tmp_path, rows):
    import pyarrow as pa
    from pyarrow import parquet

    write_csv(tmp_path / "t.csv", [{**row, "label": ";".join(row["label"])} for row in rows])
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    columns = sorted({name for row in rows for name in row})
    arrays = {
        name: pa.array([row.get(name) for row in rows], pa.list_(pa.string()) if name == "label" else pa.string())
        for name in columns
    }
    parquet.write_table(pa.table(arrays), tmp_path / "t.parquet")
    tables = [manifests.rows(manifests.read_table(tmp_path / f"t.{kind}"), "t") for kind in ("csv", "jsonl", "parquet")]
    assert tables[0] == tables[1] == tables[2]
    for row, want in zip(tables[0][0], rows, strict=True):
        assert (row.id, row.labels, row.fold, row.split) == (
            want["file"],
            tuple(want["label"]),
            want.get("fold"),
            want.get("split"),
        )
        assert row.captions == ((want["caption"],) if "caption" in want else ())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 50), st.sampled_from("xyz")), min_size=1)
)
def test_no_event_is_lost_or_moved_to_another_file(events):
    table = [
        {"file": f"{file}.wav", "label": label, "onset": str(onset / 10), "offset": str((onset + length) / 10)}
        for file, onset, length, label in events
    ]
    rows, files = manifests.rows(table, "t")
    assert files == [row.id for row in rows] == list(dict.fromkeys(row["file"] for row in table))
    for row in rows:
        want = [(o / 10, (o + n) / 10, label) for f, o, n, label in events if f"{f}.wav" == row.id]
        assert list(row.events) == sorted(want) and set(row.labels) == {label for *_, label in want}


def test_the_pretraining_manifest(recordings):
    path = recordings("pretrain_manifest.csv")
    whole, part = open_source(path), open_source(path, where=["in_test=0"])
    assert len(whole) == 6959 and 0 < len(part) < len(whole)
    assert all(row.extra["in_test"] == "0" for row in part.rows)
    assert len(part.read(0, 16_000)) == pytest.approx(part.rows[0].seconds * 16_000, abs=20)


def test_a_stretch_of_a_long_recording_is_the_same_stretch_of_the_whole(recordings):
    source = open_source(recordings("music_examples"))
    i = max(range(len(source)), key=lambda i: source.rows[i].seconds)
    assert source.length(i) > 100
    whole = source.read(i, 16_000)
    for start in (0.0, 31.4159, source.length(i) - 2.0):
        part, first = source.read(i, 16_000, start, 2.0), round(start * 16_000)
        assert np.abs(part - whole[first : first + 32_000]).max() < 1e-5


def test_folders_of_recordings(recordings):
    esc = open_source(recordings("esc10"))
    assert len(esc) == 400 and len(esc.classes) == 10 and {row.fold for row in esc.rows} == set("12345")
    birds = open_source(recordings("birdsong"))
    assert sum(len(row.events) for row in birds.rows) == 5111 and birds.classes == ["bengalese_finch_song"]
    digits = open_source(recordings("fsdd"), label_column="speaker", split_column="split_speaker")
    assert len(digits.classes) == 6 and {row.split for row in digits.rows} == {"train", "test", "valid", "unused"}


def test_words_are_learned_from_the_training_split_alone():
    whole = open_source("synth:corpus?clips=40")
    kept = training(whole)
    assert len(kept) == 30 and {row.split for row in kept.rows} == {"train"}
    assert training(kept) is kept
    test_only = whole.subset([i for i, row in enumerate(whole.rows) if row.split == "test"])
    assert training(test_only) is test_only, "no split train: all of it"
    assert len(open_source("synth:corpus?clips=40", learning=True)) == 30


@pytest.mark.parametrize(
    ("splits", "learned", "asked"),
    [
        (["Train", "TRAIN", "Test", "test"], [0, 1], [2, 3]),
        (["dev", "dev", "test", "evaluation"], [0, 1], [2, 3]),
        (["development", "development", "evaluation", "Eval"], [0, 1], [2, 3]),
        (["train", "train", "val", "Valid"], [0, 1], [2, 3]),
        (["train", "train", "extra", ""], [0, 1, 3], [2]),
        (["train"] * 4, [0, 1, 2, 3], [0, 1, 2, 3]),
        (["", "", "", ""], [0, 1, 2, 3], [0, 1, 2, 3]),
        (["test", "test", "Test", "eval"], [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_what_is_learned_from_is_not_asked_for(splits, learned, asked):
    rows = [Row(id=str(i), split=split or None) for i, split in enumerate(splits)]
    assert [int(row.id) for row in training(Listed(rows)).rows] == learned
    assert heard(rows) == asked


def listed(tmp_path, text, name="list.csv"):
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;label\na.wav;x\n", "';' between its columns. Save it with commas"),
        ("file;caption\na.wav;one, two\n", "';' between its columns"),
        ("file\tlabel\na.wav\tx\n", r"'\\t' between its columns"),
        ("file,label\na.wav,x\n".encode("utf-16"), "UTF-16. Save it as UTF-8"),
        ('file,caption\na.wav,"one\nb.wav,two\n', "unexpected end of data. Is a quote left open"),
        ("file,label, label\na.wav,x,y\n", "two columns are called 'label'"),
        ("file,label\na.wav,x,,y\n", "line 2: more cells than the header has"),
        ("name,label\na.wav,x\n", "It has: label, name. Rename the one that names the sounds"),
        ("file,onset\na.wav,1\n", "row 1: offset is missing"),
        ("file,onset,offset\na.wav,0,inf\n", "row 1: offset 'inf' is no number of seconds"),
        ('file,onset,offset\na.wav,"0,1",1\n', "row 1: onset '0,1' is no number of seconds"),
        ("file,duration\na.wav,-1\n", "row 1: duration '-1' is no number of seconds"),
        ("file,duration\na.wav,nan\n", "row 1: duration 'nan' is no number of seconds"),
    ],
)
def test_a_csv_that_cannot_be_meant_so_says_what_to_mend(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        open_source(listed(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": ', r"line 2: cannot be read as jsonl: .*One object a line"),
        ("[" * 99999, "line 2: cannot be read as jsonl"),
        ('{"file": "a.wav", "events": "junk"}', r"row 2: events 'junk': expected \[\[onset"),
        ('{"file": "a.wav", "events": 5}', "row 2: events '5'"),
        ('{"file": "a.wav", "events": [1]}', r"row 2: events '\[1\]'"),
        ('{"file": "a.wav", "events": [[1]]}', "row 2: offset is missing"),
    ],
)
def test_a_damaged_line_of_json_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        open_source(listed(tmp_path, '{"file": "b.wav"}\n' + line + "\n", "list.jsonl"))


def test_empty_rows_and_empty_labels_are_no_rows_and_no_labels(tmp_path):
    assert len(open_source(listed(tmp_path, "file,label\na.wav,x\n,\n , \n"))) == 1
    assert open_source(listed(tmp_path, "file,label,,\na.wav,x,,,,\n")).rows[0].extra == {}
    source = open_source(listed(tmp_path, '{"file": "a.wav", "label": ["x", null]}\n', "list.jsonl"))
    assert source.classes == ["x"]


def test_parquet_with_bytes(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    tone(tmp_path / "a.wav")
    parquet.write_table(pa.table({"file": [b"a.wav"], "more": [{"bytes": b"\x00"}]}), tmp_path / "list.parquet")
    assert [row.id for row in open_source(tmp_path / "list.parquet").rows] == ["a.wav"]
    parquet.write_table(pa.table({"audio": [{"path": "a.wav", "bytes": b"\x00"}]}), tmp_path / "list.parquet")
    with pytest.raises(DataError, match=r"no column 'file'.*It has: audio"):
        open_source(tmp_path / "list.parquet")


def test_parquet_with_times_that_python_does_not_hold(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    tone(tmp_path / "a.wav")
    table = pa.table({"file": ["a.wav"], "when": pa.array([9 * 10**18], pa.timestamp("ms"))})
    parquet.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(DataError, match=r"list\.parquet: cannot be read as parquet"):
        open_source(tmp_path / "list.parquet")


def test_a_file_listed_often_has_rows_of_its_own(tmp_path):
    source = open_source(listed(tmp_path, "file,label\na.wav#2,x\n" + "a.wav,y\n" * 50))
    assert [row.id for row in source.rows[:4]] == ["a.wav#2", "a.wav", "a.wav#3", "a.wav#4"]
    assert len({row.id for row in source.rows}) == 51


def test_stretches_that_nobody_obeys_are_told(tmp_path):
    with pytest.warns(OticWarning, match="'start' and 'end' are kept as plain columns"):
        source = open_source(listed(tmp_path, "file,start,end\na.wav,0,1\n"))
    assert source.rows[0].extra == {"start": "0", "end": "1"}


def test_other_files_are_no_sounds(tmp_path):
    with pytest.raises(DataError, match=r"list\.tsv: neither sound nor a table that can be read here. Data is"):
        open_source(listed(tmp_path, "file\tlabel\n", "list.tsv"))


def test_names_as_people_give_them(tmp_path, monkeypatch):
    listed(tmp_path, "file,fold\na.wav,1\nb.wav,2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [row.id for row in open_source("~/list.csv", where="fold=2").rows] == ["b.wav"]
    with pytest.raises(DataError, match="empty name"):
        open_source("")
