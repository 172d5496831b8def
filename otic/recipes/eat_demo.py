from __future__ import annotations

from dataclasses import replace

from otic.recipes.base import Recipe, lengthen
from otic.recipes.eat_tiny import eat_tiny


def eat_demo() -> Recipe:
    """`eat_tiny` for a few minutes on two cores: what `otic demo` trains on the sounds that it renders itself.

    otic pretrain eat_demo --data "synth:corpus?clips=2000" --out runs/demo --minutes 4
    """
    return replace(lengthen(eat_tiny(), 400), name="eat_demo")
