"""Labels as words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otic.core.errors import ConfigError
from otic.inference.prompts import DEFAULT, PLACE, PROMPTS, clean, fill, templates


def test_labels_become_words():
    assert clean("air_conditioner") == "air conditioner" and clean("  Sea  WAVES_") == "sea waves"
    assert clean("Bark") == "bark" and clean("Wind_and_rain") == "wind and rain"
    assert clean("Accelerating_and_revving_and_vroom", commas=True) == "accelerating, revving, vroom"


@given(st.text())
def test_a_clean_label_stays(label):
    assert clean(clean(label)) == clean(label) and "_" not in clean(label)


@given(st.text())
def test_the_label_stands_in_the_sentence_whatever_it_holds(label):
    assert fill("this is a sound of {}", label) == "this is a sound of " + label


def test_every_named_prompt_has_a_place():
    assert DEFAULT in PROMPTS and all(PLACE in t for some in PROMPTS.values() for t in some)


def test_names_and_sentences_mix():
    assert templates(()) == PROMPTS[DEFAULT]
    assert templates(["bare", "a {}", "bare"]) == ("{}", "a {}")
    with pytest.raises(ConfigError, match="where the label goes"):
        templates(["a dog"])
