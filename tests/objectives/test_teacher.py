"""Frozen teachers beside the student and on disk."""

import copy

import numpy as np
import pytest
import torch
from soundfile import write
from torch import nn

from otic.audio.frontend import FrontendConfig
from otic.audio.sinc import sinc_resample
from otic.core.batch import Batch
from otic.core.errors import ConfigError, DataError, OticWarning
from otic.core.seeds import generator
from otic.data.crops import Crops
from otic.data.rows import Probe, Row, Source
from otic.data.source import open_source
from otic.models import ViT, ViTConfig
from otic.models.cells import Ruler
from otic.objectives.teacher import SELF, EncoderTeacher, SelfTeacher, Staff, sounding, student_cells, windows
from otic.objectives.teacher_cache import CachedTeacher, cache_teacher

RATE = 16000
SMALL = ViTConfig(width=16, depth=1, heads=2, norm="pre")


def teacher(window=1.0, frontend=None, seed="teacher", **more):
    return EncoderTeacher(ViT(SMALL, generator(seed)), frontend or FrontendConfig(), window=window, **more)


def noise(*seconds):
    """A padded batch of clips of these lengths."""
    lengths = [round(s * RATE) for s in seconds]
    wave = torch.zeros(len(seconds), max(lengths))
    for k, n in enumerate(lengths):
        wave[k, :n] = 0.1 * torch.randn(n, generator=generator("noise", k))
    return Batch(wave, torch.tensor(lengths), starts=torch.zeros(len(seconds)))


class Sounds(Source):
    """Clips of noise in memory, of these seconds."""

    name = "noise / of mine"

    def __init__(self, *seconds):
        self.rows = [Row(id=f"clip@{k}.wav", seconds=s) for k, s in enumerate(seconds)]
        self.reads = []

    def read(self, i, rate, start=0.0, duration=None):
        self.reads.append(i)
        first, n = round(start * rate), round(self.rows[i].seconds * rate)
        last = n if duration is None else min(n, first + round(duration * rate))
        return noise(*[r.seconds for r in self.rows]).wave[i, first:last].numpy()

    def length(self, i):
        return self.rows[i].seconds

    def probe(self, i):
        return Probe(self.rows[i].seconds, RATE)


def test_tokens_lie_where_their_patches_lie():
    lesson = teacher()(noise(0.995, 0.5), RATE)
    assert lesson.tokens.shape == (2, 7 * 8, 16) and lesson.pooled.shape == (2, 16)
    assert lesson.cells.time[0].tolist() == [0.0, 0.16] and lesson.cells.time[-1].tolist() == [0.96, 1.12]
    assert lesson.cells.freq.min() > 20 and lesson.cells.freq.max() < 8000


def test_a_long_wave_is_heard_window_by_window():
    model, batch = teacher(), noise(2.5, 1.2)
    whole = model(batch, RATE)
    for k, (a, b) in enumerate([(0, 16000), (16000, 32000), (32000, 40000)]):
        lengths = (batch.lengths - a).clamp(1, b - a)
        part = model(Batch(batch.wave[:, a:b], lengths), RATE)
        n = part.tokens.shape[1]
        at = slice(56 * k, 56 * k + n)
        assert torch.equal(whole.tokens[:, at], part.tokens)
        assert torch.allclose(whole.cells.time[at], part.cells.time + k)
    one, two = (
        model(Batch(batch.wave[1:, a : a + 16000], torch.tensor([n])), RATE).pooled
        for a, n in ((0, 16000), (16000, 3200))
    )
    assert torch.allclose(whole.pooled[1:], (one + 0.2 * two) / 1.2, atol=1e-5)
    assert windows(32_100, 1.0, RATE) == [(0, 16000), (16000, 32000)]  # a rest of 6 ms goes unheard
    assert windows(100, 1.0, RATE) == [(0, 100)]


def test_it_hears_at_its_own_rate_and_says_so():
    high = teacher(frontend=FrontendConfig(sample_rate=32000, high=16000.0, hop=320, window=800, fft=1024))
    batch = noise(0.9)
    with pytest.warns(OticWarning, match="wants 32000 Hz, the data is at 16000 Hz"):
        lesson = high(batch, RATE)
    wave = sinc_resample(batch.wave, RATE, 32000)
    assert torch.equal(lesson.tokens, high(Batch(wave, 2 * batch.lengths), 32000).tokens)
    assert lesson.cells.time[8].tolist() == [0.16, 0.32] and lesson.cells.freq.max() > 15000
    low = teacher(frontend=FrontendConfig(sample_rate=8000, high=4000.0, hop=80, window=200, fft=256))
    on, covered = low(batch, RATE).on(student_cells(Ruler(), ViT(SMALL), 88))
    assert on.isfinite().all() and covered.unflatten(1, (5, 8))[:, :, :6].all()
    assert not covered.unflatten(1, (5, 8))[:, :, 7].any()  # above 4 kHz it hears nothing


def test_frozen_and_in_eval_mode_whatever_happens():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.staff = Staff(("a",), [teacher()], ViT(SMALL), Ruler())

    odd = Odd().train()
    (held,) = odd.staff
    assert not held.training and not held.encoder.training
    assert not list(odd.parameters()) and not odd.state_dict()
    batch = noise(0.5)
    batch.wave.requires_grad_()
    assert not held(batch, RATE).tokens.requires_grad
    odd.to(torch.float64)
    assert next(held.parameters()).dtype == torch.float64  # it moves along
    assert next(copy.deepcopy(odd).staff.held[0].parameters()).dtype == torch.float64


def test_the_moving_average_is_saved_and_follows():
    student = ViT(SMALL, generator("student"))
    staff = Staff((SELF, "a"), [teacher()], student, Ruler()).train()
    own, other = staff
    assert isinstance(own, SelfTeacher) and isinstance(other, EncoderTeacher) and len(staff) == 2
    assert not own.encoder.training and all(name.startswith("own.encoder.") for name in staff.state_dict())
    before = own.encoder.proj.weight.clone()
    with torch.no_grad():
        student.proj.weight.add_(1.0)
    staff.follow(student, 0.9)
    assert torch.allclose(own.encoder.proj.weight, before + 0.1, atol=1e-6)
    with pytest.raises(ConfigError, match="each may be there once"):
        Staff((SELF, SELF), [], student, Ruler())
    with pytest.raises(ConfigError, match="0 of them were loaded"):
        Staff(("a",), [], student, Ruler())


def test_the_cls_token_may_be_its_pooled_vector():
    batch = noise(0.5)
    model = teacher(pool="cls")
    spec = model.frontend(batch.wave, batch.lengths, 48)
    assert torch.equal(model(batch, RATE).pooled, model.encoder(spec).cls)
    with pytest.raises(ConfigError, match="no CLS token"):
        EncoderTeacher(ViT(ViTConfig(width=16, depth=1, heads=2, cls=False)), FrontendConfig(), pool="cls")


def test_identity_follows_from_weights_and_settings():
    same = {teacher().identity(), teacher().identity()}
    others = {teacher(seed="x").identity(), teacher(window=2.0).identity(), teacher(pool="cls").identity()}
    assert len(same) == 1 and len(same | others) == 4


def test_kept_equals_beside(tmp_path):
    """Crops that are whole clips, longer and shorter than a window, padded in their batch."""
    source, model = Sounds(2.3, 1.0, 0.4), teacher()
    kept = cache_teacher(model, source, tmp_path)
    crops = Crops(source, RATE, 2.3, seed=0)
    batch = crops.batch([crops.take(k) for k in range(3)])
    spans = student_cells(Ruler(), ViT(SMALL), 224)
    there, here = kept(batch, RATE), model(batch, RATE)
    told = sounding(spans, batch, RATE)
    for how in ("area", "bilinear"):
        (one, known), (two, _) = there.on(spans, how), here.on(spans, how)
        assert (known | ~told).all()
        # the window at the end of a short clip is kept without its padding, which a transformer attends to
        full = batch.lengths == batch.lengths.max()
        assert torch.allclose(one[full], two[full], atol=2e-3), (one - two)[full].abs().max()
    for k in range(3):
        n = int(batch.lengths[k])
        alone = model(Batch(batch.wave[k : k + 1, :n], batch.lengths[k : k + 1]), RATE)
        one, two = there.on(spans)[0][k : k + 1], alone.on(spans)[0]
        assert torch.allclose(one[told[k : k + 1]], two[told[k : k + 1]], atol=2e-3)
        assert torch.allclose(there.pooled[k], alone.pooled[0], atol=2e-3)


def test_a_crop_takes_its_own_cells(tmp_path):
    source, model = Sounds(3.0), teacher()
    kept = cache_teacher(model, source, tmp_path)
    whole = model(noise(3.0), RATE)
    batch = Batch(torch.zeros(1, RATE), torch.tensor([RATE]), ids=("clip@0.wav@1.000",), starts=torch.tensor([1.0]))
    lesson = kept(batch, RATE)
    inside = (whole.cells.time[:, 1] > 1) & (whole.cells.time[:, 0] < 2)
    assert torch.allclose(lesson.tokens[0], whole.tokens[0, inside], atol=2e-3)
    assert torch.allclose(lesson.cells.time[0], whole.cells.time[inside] - 1)
    second = model(Batch(noise(3.0).wave[:, 16000:32000], torch.tensor([16000])), RATE)
    assert torch.allclose(lesson.pooled, second.pooled, atol=2e-3)


def test_a_repeated_clip_says_the_same_again(tmp_path):
    source, model = Sounds(0.64), teacher()
    kept = cache_teacher(model, source, tmp_path)
    crops = Crops(source, RATE, 1.6, seed=0, short="repeat")
    lesson = kept(crops.batch([crops.take(0)]), RATE)
    on, covered = lesson.on(student_cells(Ruler(), ViT(SMALL), 160))
    image = on[0].unflatten(0, (10, 8))
    assert covered.all() and torch.equal(image[:4], image[4:8]) and torch.equal(image[:2], image[8:])


def test_keeping_goes_on_where_it_stopped(tmp_path):
    source, model = Sounds(0.5, 0.6, 0.7), teacher()
    cache_teacher(model, source.subset([1]), tmp_path, batch=1)
    source.reads.clear()
    told = []
    kept = cache_teacher(model, source, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert sorted(source.reads) == [0, 2] and told == [(2, 2)]
    cache_teacher(teacher(seed="another"), source, tmp_path)
    assert sorted(source.reads) == [0, 0, 1, 2, 2] and len(list(tmp_path.iterdir())) == 2
    files = sorted(kept.root.rglob("*.safetensors"))
    stamp = [f.stat().st_mtime_ns for f in files]
    assert len(files) == 3 and kept.root.parent == tmp_path
    cache_teacher(model, source, tmp_path)
    assert [f.stat().st_mtime_ns for f in files] == stamp
    source.rows[0] = Row(id="clip@0.wav", seconds=0.3)  # another sound under the same name
    cache_teacher(model, source, tmp_path)
    assert sum(f.stat().st_mtime_ns != s for f, s in zip(files, stamp, strict=True)) == 1


def test_processes_share_the_clips(tmp_path):
    source = Sounds(0.5, 0.6, 0.7)
    for rank in (0, 1):
        cache_teacher(teacher(), source, tmp_path, rank=rank, size=2)
        assert len(source.reads) == 2 + rank


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no kept teacher"):
        CachedTeacher(tmp_path, Sounds(0.5))
    kept = cache_teacher(teacher(), Sounds(0.5), tmp_path)
    batch = Batch(torch.zeros(1, 10), torch.tensor([10]), ids=("other.wav@0.000",), starts=torch.zeros(1))
    with pytest.raises(DataError, match=r"other\.wav: the teacher has not heard it"):
        kept(batch, RATE)
    assert np.isclose(kept.rate, RATE)


def files(folder, *seconds):
    """A folder of clips of noise, another noise for each folder."""
    folder.mkdir(parents=True)
    for k, length in enumerate(seconds):
        wave = 0.1 * torch.randn(round(length * RATE), generator=generator(str(folder), k))
        write(folder / f"{k}.wav", wave.numpy(), RATE)
    return open_source(folder)


def said(kept, source):
    return kept(Batch(torch.zeros(1, RATE), torch.tensor([RATE]), ids=("0.wav@0.000",), starts=torch.zeros(1)), RATE)


def test_data_sets_of_one_name_keep_apart(tmp_path):
    model, kept = teacher(), tmp_path / "kept"
    sources = [files(tmp_path / place / "sounds", 1.0, 1.0) for place in ("here", "there")]
    first, second = (cache_teacher(model, source, kept) for source in sources)
    for source, lesson in zip(sources, (said(first, 0), said(second, 0)), strict=True):
        wave = torch.from_numpy(source.read(0, RATE))[None]
        expected = model(Batch(wave, torch.tensor([RATE])), RATE)
        assert torch.allclose(lesson.tokens, expected.tokens, atol=2e-3)
    told = []
    cache_teacher(model, sources[0], kept, progress=lambda *done: told.append(done))
    assert not told  # the second has not driven the first one out


def test_a_file_written_again_is_heard_again(tmp_path):
    model, source = teacher(), files(tmp_path / "sounds", 1.0, 1.0)
    before = said(cache_teacher(model, source, tmp_path / "kept"), source).tokens
    write(source.paths[0], source.read(0, RATE)[::-1].copy(), RATE)
    told = []
    after = cache_teacher(model, source, tmp_path / "kept", progress=lambda *done: told.append(done))
    assert told == [(1, 1)] and not torch.allclose(said(after, source).tokens, before, atol=1e-2)


def test_a_damaged_entry_is_named_and_heard_again(tmp_path):
    model, source = teacher(), files(tmp_path / "sounds", 1.0)
    kept = cache_teacher(model, source, tmp_path / "kept")
    whole = said(kept, source).tokens
    path = next(kept.root.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"damaged .* 0\.wav is heard again"):
        said(kept, source)
    assert torch.equal(said(cache_teacher(model, source, tmp_path / "kept"), source).tokens, whole)
