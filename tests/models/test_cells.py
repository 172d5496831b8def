"""Where tokens lie, and what one grid says on another."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otic.audio.frontend import Frontend, FrontendConfig, htsat
from otic.core.seeds import generator
from otic.models.cells import Cells, Ruler, area, bilinear, blend, heard, join, patch_cells

STUDENT = patch_cells(Ruler(), (64, 8), (16, 16), (16, 16))


def lattice(times, freqs):
    """Cells of a grid from its borders, time-major."""
    time = torch.tensor([(a, b) for a, b in pairwise(times)], dtype=torch.float64)
    freq = torch.tensor([(a, b) for a, b in pairwise(freqs)], dtype=torch.float64)
    return Cells(time.repeat_interleave(len(freq), 0), freq.repeat(len(time), 1))


# 32 x 2 cells of 10 s / 32, split at 2290 Hz: the map of an HTS-AT that hears 50 to 14,000 Hz
TEACHER = lattice([10 * i / 32 for i in range(33)], [50.0, 2290.0, 14000.0])


def test_rows_of_the_student_as_specified():
    """Centres of each patch's first and last band, Kaldi mel from 20 to 8000 Hz."""
    ruler = Ruler()
    bottom, step = (
        1127 * torch.tensor(1 + 20 / 700).log(),
        1127 * torch.tensor((1 + 8000 / 700) / (1 + 20 / 700)).log() / 129,
    )
    centre = 700 * (torch.expm1((bottom + step * torch.arange(1, 129)) / 1127))
    ranges = [(round(centre[16 * r].item()), round(centre[16 * r + 15].item())) for r in range(8)]
    assert ranges == [
        (34, 281), (300, 636), (662, 1120), (1155, 1779), (1827, 2676), (2742, 3899), (3989, 5565), (5687, 7834)
    ]  # fmt: skip
    for (low, high), cell in zip(ranges, STUDENT.freq[:8].tolist()):
        assert cell[0] < low and high < cell[1]
    assert torch.equal(STUDENT.freq[:7, 1], STUDENT.freq[1:8, 0])
    assert Ruler.of(FrontendConfig()) == ruler and Ruler.of(htsat()).centred


def test_an_area_is_the_plain_sum_over_pairs():
    few = Cells(STUDENT.time[::37], STUDENT.freq[::37])
    weights = area(few, TEACHER)
    for i in range(len(few.time)):
        for j in range(len(TEACHER.time)):
            sides = []
            for ours, theirs in ((few.time[i], TEACHER.time[j]), (few.freq[i], TEACHER.freq[j])):
                sides.append(max(0.0, (min(ours[1], theirs[1]) - max(ours[0], theirs[0])).item()))
            assert weights[i, j].item() == pytest.approx(sides[0] * sides[1], abs=1e-3)


@pytest.mark.parametrize("how", [area, bilinear])
def test_rows_sum_to_one_and_a_constant_stays(how):
    weights = how(STUDENT, TEACHER)
    share = weights / weights.sum(1, keepdim=True)
    inside = STUDENT.time[:, 0] < 10
    assert torch.allclose(share[inside].sum(1), torch.ones(inside.sum(), dtype=torch.float64))
    tokens, covered = blend(weights, torch.full((2, 64, 3), 5.0))
    assert torch.equal(covered, inside.expand(2, -1))  # column 63 begins at 10.08 s: nothing is known of it
    assert torch.allclose(tokens[:, inside], torch.tensor(5.0)) and not tokens[:, ~inside].any()


def test_a_single_cell_lights_the_patches_over_it():
    for cell in (0, 7, 22, 63):
        lit = torch.zeros(1, 64, 1)
        lit[0, cell] = 1
        tokens, _ = blend(area(STUDENT, TEACHER), lit)
        over = torch.ones(512, dtype=torch.bool)
        for ours, theirs in ((STUDENT.time, TEACHER.time[cell]), (STUDENT.freq, TEACHER.freq[cell])):
            over &= (ours[:, 0] < theirs[1] - 1e-9) & (ours[:, 1] > theirs[0] + 1e-9)
        assert torch.equal(tokens[0, :, 0] > 0, over)


def test_which_rows_take_which_teacher_row():
    share = area(STUDENT, TEACHER)
    low = (share[:8, 0::2].sum(1) / share[:8].sum(1)).tolist()  # of the first column
    assert low[:4] == [1, 1, 1, 1] and low[5:] == [0, 0, 0] and 0.3 < low[4] < 0.7


def test_sound_lands_in_the_column_of_its_time():
    wave = torch.zeros(1, 164_080)  # 1024 frames
    wave[:, 48_640:51_200] = 0.3 * torch.randn(2560, generator=generator("burst"))  # 3.04 to 3.20 s
    spec = Frontend(FrontendConfig(subtract_mean=False))(wave)[0, 0]
    loud = (spec > spec.min() + 1).any(1).nonzero().flatten()
    assert loud.min() // 16 == 18 and loud.max() // 16 == 19  # the window of 25 ms reaches into the one before
    energy = (spec - spec.min()).unflatten(0, (64, 16)).sum((1, 2))
    assert energy.argmax() == 19 and energy[18] < 0.2 * energy[19]
    assert STUDENT.time[19 * 8].tolist() == [3.04, 3.2]
    tokens, _ = blend(area(STUDENT, lattice([0, 3.04, 3.2, 10.24], [0, 8000.0])), torch.eye(3)[None])
    assert (tokens[0, :, 1] > 0.5).unflatten(0, (64, 8)).any(1).nonzero().tolist() == [[19]]


def test_bilinear_between_and_beyond_the_centres():
    teacher = lattice([0.0, 1.0, 2.0], [0.0, 100.0])
    student = lattice([0.0, 0.2, 0.8, 1.2, 1.8, 2.0], [0.0, 100.0])
    assert torch.allclose(bilinear(student, teacher)[:, 1], torch.tensor([0, 0, 0.5, 1, 1]).double())
    several = Cells(torch.stack([teacher.time, teacher.time * 0]), torch.stack([teacher.freq] * 2))
    several.time[1, 0] = torch.tensor([0.0, 2.0])  # its second cell only fills the row up
    both = bilinear(student, several)
    assert torch.equal(both[0], bilinear(student, teacher)) and torch.equal(
        both[1], torch.tensor([[1.0, 0.0]] * 5).double()
    )


def test_cells_that_hold_sound():
    seconds = torch.tensor([10.0, 9.99, 0.01, 10.24], dtype=torch.float64)
    real = heard(STUDENT, seconds).unflatten(1, (64, 8))
    assert torch.equal(real.all(2), real.any(2))
    assert real.any(2).sum(1).tolist() == [63, 62, 1, 64]  # half of column 62 is sound, then less; never none


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.floats(0.3, 3.0))
def test_any_two_grids(ours, bands, theirs, seconds):
    student = lattice([seconds * i / ours for i in range(ours + 1)], [8000 * i / bands for i in range(bands + 1)])
    teacher = lattice([seconds * i / theirs for i in range(theirs + 1)], [0, 3000.0, 8000.0])
    weights = area(student, teacher)
    assert weights.sum().item() == pytest.approx(8000 * seconds, rel=1e-4)  # nothing is lost or told twice
    _, covered = blend(weights, torch.zeros(1, len(teacher.time), 1))
    assert covered.all()
    same, _ = blend(area(student, student), torch.arange(float(len(student.time)))[None, :, None])
    assert torch.equal(same[0, :, 0], torch.arange(float(len(student.time))))


def test_windows_stand_one_after_the_other():
    half = lattice([0.0, 1.0], [0.0, 100.0])
    both = join([half, half.later(1.0)])
    assert both.time.tolist() == [[0, 1], [1, 2]] and torch.equal(both.freq, half.freq.repeat(2, 1))
