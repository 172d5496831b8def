"""Conditions on columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otic.core.errors import DataError
from otic.data.where import keep, parse

TABLE = [
    {"file": "a.wav", "fold": "1", "in_test": "0", "label": "dog;rain"},
    {"file": "b.wav", "fold": "2", "in_test": "1", "label": "rain"},
    {"file": "c.wav", "fold": "3", "in_test": "0.0"},
    {"file": "d in e.wav", "fold": "10", "in_test": "false", "label": ["cat", "dog"]},
]


def files(*where):
    return [row["file"][0] for row in keep(TABLE, where, "table")]


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["in_test=0"], "acd"),
        (["in_test==0"], "acd"),
        (["in_test = 0"], "acd"),
        (["in_test!=0"], "b"),
        (["fold in 1,2"], "ab"),
        (["fold in [1, 10]"], "ad"),
        (["fold not in 1,2"], "cd"),
        (["label=dog"], "ad"),
        (["label=dog;rain"], "a"),
        (["label!=rain"], "cd"),
        (["label="], "c"),
        (["file=d in e.wav"], "d"),
        (["in_test=0", "fold!=1"], "cd"),
        ([], "abcd"),
    ],
)
def test_conditions(where, left):
    assert "".join(files(*where)) == left


def test_names_that_python_would_take_for_numbers():
    table = [{"take": "1_2"}, {"take": "12"}, {"take": "nan"}, {"take": "1e1"}]
    assert keep(table, ["take=12"], "t") == [{"take": "12"}]
    assert keep(table, ["take=1_2"], "t") == [{"take": "1_2"}]
    assert keep(table, ["take=nan"], "t") == [{"take": "nan"}]
    assert keep(table, ["take=10"], "t") == [{"take": "1e1"}]


def test_parse_takes_the_first_sign():
    assert parse("fold in 1,2") == ("fold", True, ["1", "2"])
    assert parse("a b!=c=d") == ("a b", False, ["c=d"])
    assert parse("inside=in") == ("inside", True, ["in"])


def test_messages_name_the_mend():
    with pytest.raises(DataError, match="Did you mean 'in_test'"):
        files("intest=0")
    with pytest.raises(DataError, match=r"leaves no row. fold holds '1', '10', '2', '3'"):
        files("fold=7")
    with pytest.raises(DataError, match="expected column=value"):
        files("fold")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sets(st.integers(0, 5), min_size=1))
def test_in_and_not_in_divide_the_table(cells, values):
    table = [{"file": str(i), "x": str(v)} for i, v in enumerate(cells)]
    text = ",".join(map(str, values))

    def count(condition):
        try:
            return len(keep(table, [condition], "t"))
        except DataError:
            return 0

    assert count(f"x in {text}") == sum(v in values for v in cells)
    assert count(f"x in {text}") + count(f"x not in {text}") == len(cells)
