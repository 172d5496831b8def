"""Runs by name: each file holds a function that returns a whole run's settings; `RECIPES` lists them."""

from collections.abc import Callable

from otic.core.registry import Registry
from otic.recipes.base import Recipe, lengthen
from otic.recipes.eat_base import eat_base
from otic.recipes.eat_demo import eat_demo
from otic.recipes.eat_large import eat_large
from otic.recipes.eat_small import eat_small
from otic.recipes.eat_tiny import eat_tiny

RECIPES: Registry[Callable[[], Recipe]] = Registry("recipe")
for _recipe in (eat_base, eat_demo, eat_large, eat_small, eat_tiny):
    RECIPES.add(_recipe)

__all__ = ["RECIPES", "Recipe", "lengthen"]
