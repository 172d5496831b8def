"""Damaged, odd and hostile inputs: every one gets the outcome it should, and the process lives on."""

import csv
import io
import os
import stat
import sys
import tarfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otic.audio.read import find, info, read
from otic.audio.windows import stream
from otic.core.errors import AudioError, AudioWarning
from otic.core.text import printable

SHARED = Path(os.environ.get("OTIC_SHARED", Path(__file__).parents[3] / "shared"))
TABLE = SHARED / "data" / "bad_audio" / "expect.csv"
CASES = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.is_file() else []


def outcome(path, **options):
    """("ok" | "warn" | "error", kinds, messages, sound or None)"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sound = read(path, **options)
        except AudioError as error:
            return "error", (error.kind,), [str(error)], None
    assert all(isinstance(w.message, AudioWarning) for w in caught)
    kinds = tuple(w.message.kind for w in caught)
    assert sound.notes == kinds
    return ("warn" if kinds else "ok"), kinds, [str(w.message) for w in caught], sound


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"].removeprefix("files/"))
@pytest.mark.parametrize("rate", [None, 16000])
def test_each_case_has_its_outcome(recordings, capfd, case, rate):
    path = recordings("bad_audio") / case["file"]
    stretch = {"duration": 60.0} if "two_hours" in case["file"] else {}  # the whole is streamed in test_windows
    got, kinds, messages, sound = outcome(path, rate=rate, **stretch)
    assert got in case["expected"].split("_or_"), messages
    if got != "ok":
        assert case["kind"] in kinds
    for message in messages:
        assert path.name in message and "\n" not in message and len(message) < 600
    if sound is not None:
        assert sound.wave.dtype == np.float32 and sound.wave.ndim == 1 and len(sound.wave)
        assert np.isfinite(sound.wave).all()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"].removeprefix("files/"))
def test_header_and_bytes_agree_with_the_path(recordings, case):
    path = recordings("bad_audio") / case["file"]
    if "two_hours" in case["file"]:
        assert info(path).seconds == 7200
        return
    by_path = outcome(path)
    data = path.read_bytes()
    for other in (data, io.BytesIO(data)):
        got = outcome(other)
        assert got[:2] == by_path[:2]
        if by_path[3] is not None:
            np.testing.assert_array_equal(got[3].wave, by_path[3].wave)
    if by_path[0] == "ok":
        said = info(path)
        assert said.rate == by_path[3].rate
        assert said.seconds == pytest.approx(by_path[3].seconds, abs=0.03)


SAME = "pcm24.wav pcm32.wav float32.wav float64.wav flac_96k_24bit.flac rate_192k.flac mp3_16k.mp3 vorbis.ogg opus.opus"


@pytest.mark.parametrize("name", SAME.split())
def test_the_same_second_sounds_the_same(recordings, name):
    files = recordings("bad_audio") / "files"
    reference = read(files / "good_reference_16k.wav").wave
    wave = read(files / name, rate=16000).wave
    least = 0.97 if name.endswith(("mp3", "ogg", "opus")) else 0.9999
    shifts = range(-900, 901) if name.endswith("mp3") else range(-40, 41)  # decoders may keep the encoder's delay
    best = max(_correlation(reference, wave, shift) for shift in shifts)
    assert best > least


def _correlation(a, b, shift):
    a, b = (a[shift:], b) if shift >= 0 else (a, b[-shift:])
    n = min(len(a), len(b))
    return float(a[:n] @ b[:n] / np.sqrt((a[:n] @ a[:n]) * (b[:n] @ b[:n])))


def test_left_only_is_half_as_loud(recordings):
    files = recordings("bad_audio") / "files"
    reference = read(files / "good_reference_16k.wav").wave
    np.testing.assert_allclose(read(files / "stereo_left_only.wav").wave, reference / 2, atol=1e-4)


PARTIAL = ["truncated.flac", "damaged_middle.flac", "damaged_middle.mp3", "real_damaged_1.flac", "real_damaged_2.flac"]


@pytest.mark.parametrize("name", PARTIAL)
@pytest.mark.parametrize("av", [True, False])
def test_partial_keeps_what_can_be_decoded(recordings, monkeypatch, capfd, name, av):
    path = recordings("bad_audio") / "files" / name
    if av:
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    got, kinds, messages, sound = outcome(path, on_error="partial")
    assert got == "warn" and set(kinds) <= {"truncated", "corrupt"}, messages
    assert 0.4 < sound.seconds <= info(path).seconds
    assert f"{sound.seconds:.2f} s" in " ".join(messages) or "frames" in " ".join(messages)
    assert capfd.readouterr().err == ""


def test_pyav_recovers_more_than_soundfile(recordings, monkeypatch):
    pytest.importorskip("av")
    path = recordings("bad_audio") / "files" / "damaged_middle.flac"
    with_av = read(path, on_error="partial", warn=False).wave
    monkeypatch.setitem(sys.modules, "av", None)
    without = read(path, on_error="partial", warn=False).wave
    assert len(with_av) > 2 * len(without)
    np.testing.assert_array_equal(with_av[: len(without)], without)


def test_without_pyav_the_error_names_format_and_extra(recordings, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"MP4 .*pip install 'otic\[av\]'") as caught:
        read(recordings("bad_audio") / "files" / "aac.m4a")
    assert caught.value.kind == "unsupported_format"


def test_non_finite_samples_become_zero_on_request(recordings):
    files = recordings("bad_audio") / "files"
    for name in ("nan.wav", "inf.wav"):
        raw, _ = sf.read(files / name, dtype="float32")
        got, kinds, _, sound = outcome(files / name, non_finite="zero")
        assert got == "warn" and "non_finite" in kinds
        np.testing.assert_array_equal(sound.wave, np.where(np.isfinite(raw), raw, 0))


def test_over_full_scale_is_kept(recordings):
    path = recordings("bad_audio") / "files" / "float_over_full_scale.wav"
    raw, _ = sf.read(path, dtype="float32")
    np.testing.assert_array_equal(read(path, warn=False).wave, raw)
    assert abs(raw).max() > 10


# --- names, links and pipes


@pytest.fixture
def odd(recordings, tmp_path):
    with tarfile.open(recordings("bad_audio") / "odd_names.tar") as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    return tmp_path / "odd"


@pytest.mark.timeout(20)
def test_scan_of_odd_names(odd):
    found = find(odd)
    names = [os.fsencode(path.name) for path in found.files]
    assert len(names) == len(set(names)) and b"good.wav" in names
    assert any(b"\xff\xfe" in name for name in names) and any(b"\n" in name for name in names)
    assert any(name.startswith(b"-") for name in names) and any(len(name) == 244 for name in names)
    assert b"trailing_dot..wav" in names and not any(name.startswith(b".") for name in names)
    skipped = {path.name: reason for path, reason in found.skipped}
    assert set(skipped) == {"dangling.wav", "self.wav", "fifo.wav", "directory.wav"}
    assert skipped["fifo.wav"] == "a pipe" and skipped["directory.wav"] == "a folder, not a file"
    assert len(find(odd, hidden=True).files) == len(found.files) + 1
    for path in found.files:
        sound = read(path, warn=False)
        assert sound.source == str(path)
        printable(sound.source).encode("utf-8")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name, kind",
    [
        ("fifo.wav", "not_a_file"),
        ("directory.wav", "not_a_file"),
        ("dangling.wav", "missing"),
        ("self.wav", "unreadable"),
    ],
)
def test_reading_what_is_no_file(odd, name, kind):
    for use in (read, info, lambda src: list(stream(src, rate=16000, window=1.0, hop=1.0))):
        with pytest.raises(AudioError, match=name) as caught:
            use(odd / name)
        assert caught.value.kind == kind


def test_scan_of_what_is_no_folder(tmp_path):
    with pytest.raises(AudioError, match="not a folder"):
        find(tmp_path / "nowhere")


def test_each_folder_once_and_by_its_real_path(tmp_path):
    (tmp_path / "b").mkdir()
    sf.write(tmp_path / "b" / "x.wav", np.zeros(100), 16000)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    sf.write(elsewhere / "deep" / "Y.FLAC", np.zeros(100), 16000)
    (tmp_path / "b" / "link").symlink_to(elsewhere)
    (tmp_path / "notes.txt").write_text("no sound")
    assert find(tmp_path).files == [tmp_path / "b" / "x.wav", elsewhere / "deep" / "Y.FLAC"]
    assert find(tmp_path / "b").files == [tmp_path / "b" / "link" / "deep" / "Y.FLAC", tmp_path / "b" / "x.wav"]
    assert find(tmp_path).skipped == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_must_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir()
    path = tmp_path / "secret.wav"
    sf.write(path, np.zeros(100), 16000)
    path.chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(AudioError, match="ermission") as caught:
            read(path)
        assert caught.value.kind == "unreadable"
        assert [p.name for p, _ in find(tmp_path).skipped] == ["closed"]
    finally:
        (tmp_path / "closed").chmod(stat.S_IRWXU)


def test_permission_errors_are_told(tmp_path, monkeypatch):
    """The same as root, who may read everything: the system call is made to refuse."""
    path = tmp_path / "secret.wav"
    sf.write(path, np.zeros(100), 16000)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AudioError, match=r"secret\.wav: cannot be opened \(Permission denied\)") as caught:
        read(path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", refuse)
    assert [reason for _, reason in find(tmp_path).skipped] == ["a folder that cannot be read: Permission denied"]
    assert caught.value.kind == "unreadable"


def test_a_failing_disk_is_told(tmp_path, monkeypatch):
    path = tmp_path / "x.ogg"
    sf.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)

    def fail(fd, count, offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(AudioError, match=r"x\.ogg: cannot be read \(Input/output error\)") as caught:
        read(path)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("name", ["x" * 5000 + ".wav", "a/" * 2500 + "x.wav", "nul\0.wav"])
def test_impossible_paths(name):
    with pytest.raises(AudioError) as caught:
        read(name)
    assert caught.value.kind == "unreadable" and len(str(caught.value)) < 400


def test_a_file_that_vanishes_or_shrinks_while_it_is_read(tmp_path):
    tone = np.sin(np.arange(16000 * 60) / 10).astype(np.float32)
    for damage in (Path.unlink, lambda path: os.truncate(path, 20_000)):
        path = tmp_path / "x.wav"
        sf.write(path, tone, 16000, subtype="PCM_16")
        blocks = stream(path, rate=16000, window=1.0, hop=1.0, block=1, warn=False)
        first = next(blocks)[0]
        damage(path)
        rest = [wave for waves, _ in blocks for wave in waves]
        assert len(first) == 1 and len(rest) >= 10


def test_standard_input(monkeypatch, tmp_path):
    sf.write(tmp_path / "x.flac", np.sin(np.arange(16000) / 10), 16000)
    data = (tmp_path / "x.flac").read_bytes()
    reading, writing = os.pipe()

    def feed():
        with open(writing, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reading, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        sound = read("-")
    thread.join()
    assert sound.source == "<stdin>" and len(sound.wave) == 16000
