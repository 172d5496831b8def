"""Reading ahead: in order, bounded, several at once, and nothing left behind."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otic.inference.ahead import ahead


def maker(items):
    return lambda: iter(items)


def one(item):
    return 1


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=12), st.integers(0, 9), st.integers(1, 4))
def test_the_order_is_that_of_the_makers(rows, room, threads):
    found = list(ahead([maker(row) for row in rows], lambda item: item, room, threads))
    assert found == [item for row in rows for item in row]


def test_what_a_maker_raises_comes_in_its_place():
    def broken():
        yield 2
        raise OSError("torn")

    found = []
    with pytest.raises(OSError, match="torn"):
        found.extend(iter_into(found, ahead([maker([1]), broken, maker([3])], one, 9, 3)))
    assert found == [1, 2]
    assert not readers()


def iter_into(found, items):
    for item in items:
        found.append(item)
    return []


def test_no_more_waits_than_there_is_room_for():
    made, taken, most = [], 0, 0

    def noted(k):
        for i in range(20):
            made.append((k, i))
            yield k, i

    for _ in ahead([lambda k=k: noted(k) for k in range(5)], one, 4, 3):
        taken += 1
        time.sleep(0.001)
        most = max(most, len(made) - taken)
    assert taken == 100
    assert 2 < most <= 4 + 1 + 3  # those waiting, one more for the first maker, and one in each thread's hands


def test_threads_work_side_by_side():
    met = threading.Barrier(3, timeout=20)

    def waits():
        met.wait()  # passes only once all three are here
        yield 1

    assert list(ahead([waits] * 3, one, 9, 3)) == [1, 1, 1]


def test_leaving_early_stops_the_threads():
    def endless():
        while True:
            yield 0

    items = ahead([endless, endless], one, 3, 2)
    next(items)
    assert readers()
    items.close()
    assert not readers()


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("read-ahead")]
