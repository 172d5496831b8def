"""Windows: every sample covered, spans true, streams equal to the whole, memory constant."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio.read import read
from otic.audio.windows import spans, starts, stream
from otic.core.errors import AudioError, AudioWarning, ConfigError


@given(total=st.integers(1, 400), window=st.integers(1, 100), hop=st.integers(1, 150))
def test_starts(total, window, hop):
    first = starts(total, window, hop)
    assert first == sorted(set(first)) and first[0] == 0
    if total <= window:
        assert first == [0]
        return
    assert all(a + window <= total for a in first)
    assert all(a == i * hop for i, a in enumerate(first[:-1]))
    if hop <= window:
        covered = set().union(*(range(a, a + window) for a in first))
        assert covered == set(range(total))


@given(seconds=st.floats(0.01, 100), window=st.floats(0.05, 20), hop=st.floats(0.05, 20))
def test_spans_agree_with_the_windows_of_a_stream(seconds, window, hop):
    got = spans(seconds, window, hop)
    assert got.shape[1] == 2 and (got[:, 1] > got[:, 0]).all() and got[0, 0] == 0
    np.testing.assert_allclose(got[:, 1] - got[:, 0], min(window, seconds), atol=2e-5)
    assert got[-1, 1] <= seconds + 1e-6
    if hop <= window:
        assert got[-1, 1] == pytest.approx(seconds, abs=2e-5)


def test_spans_of_a_rounded_length_have_no_extra_window():
    for rate in (11025, 22050, 44100):
        for window in (1000, 4567):
            assert len(spans(7 * window / rate, window / rate, window / rate)) == 7


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    path = tmp_path_factory.mktemp("piece") / "stereo.flac"
    noise = 0.1 * np.random.default_rng(0).standard_normal((44100 * 21 + 77, 2))
    sf.write(path, noise, 44100)
    return path


@given(window=st.floats(0.1, 25), hop=st.floats(0.1, 8), rate=st.sampled_from([8000, 16000, 44100]))
@settings(max_examples=15, deadline=None)
def test_a_stream_equals_the_windows_of_the_whole(piece, window, hop, rate):
    whole = read(piece, rate=rate).wave
    size = round(window * rate)
    first = starts(len(whole), size, round(hop * rate))
    blocks = list(stream(piece, rate=rate, window=window, hop=hop, block=5))
    assert all(len(waves) == len(at) <= 5 for waves, at in blocks)
    at = np.concatenate([at for _, at in blocks])
    np.testing.assert_allclose(at[:, 0], np.array(first) / rate, atol=1e-9)
    np.testing.assert_allclose(at[:, 1], np.minimum(np.array(first) + size, len(whole)) / rate, atol=1e-9)
    for begin, wave in zip(first, (w for waves, _ in blocks for w in waves), strict=True):
        np.testing.assert_allclose(wave, whole[begin : begin + size], atol=1e-6)


def test_a_short_sound_is_one_short_window():
    ((waves, at),) = stream((np.ones(8000, np.float32), 16000), rate=16000, window=2.0, hop=1.0)
    assert waves.shape == (1, 8000) and at.tolist() == [[0.0, 0.5]]


def test_impossible_windows():
    for window, hop in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)):
        with pytest.raises(ConfigError, match="more than 0 seconds"):
            list(stream((np.ones(8000, np.float32), 16000), rate=16000, window=window, hop=hop))
        with pytest.raises(ConfigError, match="more than 0 seconds"):
            spans(1.0, window, hop)


def test_warnings_and_errors_of_a_stream(tmp_path):
    silence = (np.zeros(32000, np.float32), 16000)
    with pytest.warns(AudioWarning, match="silence"):
        list(stream(silence, rate=16000, window=1.0, hop=1.0))
    list(stream(silence, rate=16000, window=1.0, hop=1.0, warn=False))
    bad = np.ones(320000, np.float32) / 2
    bad[300000] = np.nan
    blocks = stream((bad, 16000), rate=16000, window=1.0, hop=1.0, block=2)
    assert sum(len(next(blocks)[0]) for _ in range(8)) == 16  # what comes before the damage is given out
    with pytest.raises(AudioError, match=r"the first at 18\.750 s"):
        list(blocks)


MEASURE = """
import resource, sys
from otic.audio.windows import stream
next(stream(sys.argv[1], rate=16000, window=10.0, hop=10.0, warn=False))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
windows = samples = 0
for waves, spans in stream(sys.argv[1], rate=16000, window=10.0, hop=10.0, warn=False):
    windows, samples, end = windows + len(waves), samples + waves.size, spans[-1, 1]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(windows, samples, end, grown // 1024)
"""


def measure(path):
    """Windows, samples, end in seconds, and MiB by which the process grew at most."""
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    windows, samples, end, grown = run.stdout.split()
    return int(windows), int(samples), float(end), int(grown)


def test_an_hour_needs_no_more_memory_than_a_minute(tmp_path):
    path = tmp_path / "hour.wav"
    second = (0.3 * np.sin(np.arange(22050) / 7)).astype(np.float32)
    with sf.SoundFile(path, "w", 22050, 1, "PCM_U8") as file:
        for _ in range(60):
            file.write(np.tile(second, 60))
    windows, samples, end, grown = measure(path)
    assert (windows, samples, end) == (360, 3600 * 16000, 3600.0)  # 230 MB as float32
    assert grown < 40


def test_two_hours_in_a_few_kilobytes(recordings):
    path = recordings("bad_audio") / "files" / "two_hours_silence.flac"
    windows, samples, end, grown = measure(path)
    assert (windows, samples, end) == (720, 7200 * 16000, 7200.0)  # 460 MB as float32
    assert grown < 40
    with pytest.warns(AudioWarning) as caught:
        assert sum(len(waves) for waves, _ in stream(path, rate=16000, window=60.0, hop=60.0)) == 120
    assert [w.message.kind for w in caught] == ["silent"]
    with pytest.raises(AudioError, match="over the limit of 600 s") as refused:
        read(path, max_seconds=600.0)
    assert refused.value.kind == "too_long"
