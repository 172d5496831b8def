"""Prints `docs/tasks.md`."""

from otic.evaluation.tasks import markdown

print(markdown(), end="")
