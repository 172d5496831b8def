"""The teachers of a run, beside the student or kept on disk."""

from __future__ import annotations

from pathlib import Path

from otic.apps.progress import Progress
from otic.core.world import World
from otic.data.rows import Source
from otic.objectives.teacher import Teacher, WindowTeacher
from otic.objectives.teacher_cache import cache_teacher
from otic.recipes import Recipe


def teachers(
    recipe: Recipe, source: Source, folder: str | Path | None, world: World, *, threads: int, quiet: bool
) -> list[Teacher]:
    """The models that a recipe names as teachers.

    Args:
        recipe: Whose config names them.
        source: The run's data.
        folder: Where what they say of each clip is kept; what is missing is heard now, each process its share.
        world: The processes.
        threads: That read clips.
        quiet: No progress on stderr.
    """
    loaded = recipe.load_teachers()
    if folder is None:
        return loaded
    kept: list[Teacher] = []
    for teacher in loaded:
        assert isinstance(teacher, WindowTeacher)
        bar = Progress(f"{teacher.name} hears {source.name}", unit="clips", quiet=quiet or not world.main)
        with bar, world.autocast():
            kept.append(
                cache_teacher(
                    teacher.to(world.device), source, folder, threads=threads, rank=world.rank, size=world.size,
                    progress=bar,
                )
            )  # fmt: skip
    world.barrier()
    return kept
