"""A name for each thing: a dict that answers an unknown name with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from otic.core.errors import ConfigError

T = TypeVar("T")


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """One line for a name we do not have: the nearest spelling, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{what} {name!r} is unknown. {hint}Known: {', '.join(names)}."


class Registry(dict[str, T]):
    """A dict from name to thing. `@registry.add` files a thing under its own name, `@registry.named("name")` and
    `registry.add(thing, "name")` under that one.

    Raises:
        ConfigError: on an unknown name, with the nearest spelling.
    """

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, name: str) -> T:
        raise ConfigError(unknown(self.what, name, self))

    def add(self, thing: T, name: str | None = None) -> T:
        """File `thing`, by default under its `__name__`; returns it."""
        key = name or getattr(thing, "__name__", None)
        assert isinstance(key, str), f"this {self.what} has no name"
        assert key not in self, f"{self.what} {key!r} is filed twice"
        self[key] = thing
        return thing

    def named(self, name: str) -> Callable[[T], T]:
        """A decorator that files what it is put on."""
        return lambda thing: self.add(thing, name)
