"""Runs by name: one file for each method, whose functions return a whole run's settings; `RECIPES` lists them all."""

import importlib
import pkgutil

from otic.recipes.base import RECIPES, Recipe, lengthen

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")  # which files its recipes in RECIPES

__all__ = ["RECIPES", "Recipe", "lengthen"]
