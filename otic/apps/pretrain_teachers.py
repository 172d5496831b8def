"""The teachers of a run, beside the student or kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from otic.apps.progress import Progress
from otic.core.errors import ConfigError
from otic.core.world import World
from otic.data.rows import Source
from otic.objectives.teacher import SELF, Teacher, WindowTeacher
from otic.objectives.teacher_cache import cache_teacher
from otic.recipes import Recipe


def teachers(
    recipe: Recipe,
    source: Source,
    folder: str | Path | None,
    world: World,
    *,
    threads: int,
    stop: Callable[[], None],
    quiet: bool,
) -> list[Teacher]:
    """The models that a recipe names as teachers.

    Args:
        recipe: Whose config names them.
        source: The run's data.
        folder: Where what they say of each clip is kept; what is missing is heard now, each process its share.
        world: The processes.
        threads: That read clips.
        stop: Called between batches of what is heard; may raise.
        quiet: No progress on stderr.
    """
    loaded = recipe.load_teachers()
    if folder is None:
        return loaded
    kept: list[Teacher] = []
    for teacher in loaded:
        assert isinstance(teacher, WindowTeacher)
        bar = Progress(f"{teacher.name} hears {source.name}", unit="clips", quiet=quiet or not world.main)

        def heard(done: int, total: int, bar: Progress = bar) -> None:
            bar(done, total)
            stop()

        with bar, world.autocast():
            kept.append(
                cache_teacher(
                    teacher.to(world.device), source, folder, threads=threads, rank=world.rank, size=world.size,
                    progress=heard,
                )
            )  # fmt: skip
    world.barrier()
    return kept


def check_teachers(was: Sequence[str] | None, now: Sequence[str], recipe: Recipe, folder: Path) -> None:
    """Refuse to go on with other teachers than a run began with.

    Args:
        was: Their identities then; None: the run's version of otic did not note them.
        now: Their identities.
        recipe: Names them.
        folder: The run's.

    Raises:
        ConfigError: naming the one that has changed.
    """
    names = [name for name in getattr(recipe.objective, "teachers", ()) if name != SELF]
    for name, before, after in zip(names, now if was is None else was, now, strict=True):
        if before != after:
            raise ConfigError(
                f"{folder}: {name}, its teacher, is another model than when this run began. "
                "Put the old one back, or choose another folder."
            )
