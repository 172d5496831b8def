"""Batches side by side: the same answers in the same order, and torch's threads as they were."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otic.inference.encode import groups
from otic.inference.lanes import lanes, side_by_side

COUNTS = st.lists(st.integers(1, 5), max_size=40)


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_answers_come_in_order_and_the_threads_are_as_before(threads, count):
    inside = []

    def work(i):
        inside.append(torch.get_num_threads())
        return i * i

    assert list(side_by_side(work, range(7), count)) == [i * i for i in range(7)]
    assert set(inside) == {max(1, threads // min(count, 7))}
    assert torch.get_num_threads() == threads


def test_batches_are_at_work_at_once(threads):
    meet = threading.Barrier(3, timeout=30)  # raises unless three wait here together
    assert sorted(side_by_side(lambda _: meet.wait(), range(3), 3)) == [0, 1, 2]


def test_what_a_batch_raises_is_raised_here(threads):
    def work(i):
        if i == 2:
            raise ValueError("the third")
        return i

    with pytest.raises(ValueError, match="the third"):
        list(side_by_side(work, range(5), 2))
    assert torch.get_num_threads() == threads


def test_a_gpu_has_one_lane(threads):
    assert lanes(torch.device("cpu")) == threads
    assert lanes(torch.device("cuda")) == 1


@given(COUNTS, st.integers(1, 30), st.integers(1, 6))
def test_every_item_is_in_one_batch_of_its_kind_within_the_budget(counts, budget, beside):
    batches = list(groups(counts, lambda count: count, budget, beside))
    assert sorted(i for batch in batches for i in batch) == list(range(len(counts)))
    for batch in batches:
        (count,) = {counts[i] for i in batch}
        assert len(batch) * count <= budget or len(batch) == 1
    for count in set(counts):
        sizes = [len(batch) for batch in batches if counts[batch[0]] == count]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) % beside == 0 or max(sizes) == 1


def test_vectors_do_not_depend_on_the_lanes(model):
    draw = np.random.default_rng(0)
    waves = [draw.standard_normal(n).astype(np.float32) for n in (16000, 8000, 16000, 30000, 16000, 400, 16000)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found.append(model.encode(waves))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=0, atol=1e-6 * np.abs(found[0]).max())
