"""What is trained on what, and which clips nobody is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from otic.core.config import to_dict
from otic.core.files import write_text
from otic.data.mixture import Asked, Mixture, Task, read_mixture
from otic.data.rows import Source
from otic.data.source import open_source

TASKS = Path(__file__).parent / "tasks.yaml"
ALL = "all"
TEST = {  # the clips that no arm is trained on
    "esc10": "fold=5", "esc50_dev20": "fold=5", "fsdd": "split=test", "arabic_commands": "split=test",
    "emodb4": "fold=5", "percussion": "fold=5", "esc10_scenes": "split=test",
}  # fmt: skip
PROBED = {  # name of a question -> (data, label column); what each encoder is probed on
    "esc10": ("esc10", "label"), "esc50_dev20": ("esc50_dev20", "label"), "digits": ("fsdd", "label"),
    "speaker": ("fsdd", "speaker"), "commands": ("arabic_commands", "label"), "emotion": ("emodb4", "label"),
    "percussion": ("percussion", "label"),
}  # fmt: skip
METRIC = {"emotion": "uar"}  # accuracy elsewhere: emotions are unequally many


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole comparison.

    Attributes:
        out: Folder of the runs and scores.
        data: Folder of the recordings.
        arms: `all`, or names of tasks.
        recipe: Of the runs.
        init: A model that all arms start from; None: random weights.
        steps: Updates of each arm.
        align: Updates of each alignment with words.
        settings: Changes of the recipe.
    """

    out: Path
    data: Path
    arms: tuple[str, ...]
    recipe: str
    init: str | None
    steps: int
    align: int
    settings: tuple[str, ...] = ()

    @property
    def mixture(self) -> Mixture:
        return replace(read_mixture(TASKS), root=str(self.data.resolve()))

    def tasks(self, arm: str) -> list[Task]:
        found = [task for task in self.mixture.tasks if arm in (ALL, task.name)]
        assert found, f"no task {arm!r}; there are {', '.join(dict.fromkeys(t.name for t in self.mixture.tasks))}"
        return found

    def file(self, arm: str) -> Path:
        """The arm's tasks, as a file."""
        path = self.out / "tasks" / f"{arm}.yaml"
        text = yaml.safe_dump(to_dict(replace(self.mixture, tasks=tuple(self.tasks(arm)))), sort_keys=False)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        return path

    def run(self, arm: str) -> Path:
        return self.out / "runs" / arm

    def words(self, arm: str) -> Path:
        return self.out / "words" / arm

    def tested(self, task: Task) -> Source:
        """The test clips of a task, as it asks about them."""
        assert isinstance(task.data, str)
        path = self.out / "tasks" / "tested" / f"{task.name}_{task.data}.yaml"
        held = replace(self.mixture, tasks=(replace(task, where=TEST[task.data]),))
        write_text(path, yaml.safe_dump(to_dict(held), sort_keys=False))
        return open_source(path)

    def probed(self, name: str) -> Source:
        """A labelled set whose split is ours: trained on, or test; no folds."""
        data, column = PROBED[name]
        source = open_source(self.data / data, label_column=column)
        test = {row.id for row in open_source(self.data / data, where=[TEST[data]]).rows}
        rows = [replace(row, fold=None, split="test" if row.id in test else "train") for row in source.rows]
        return Asked(name, source, rows)


def arms_of(text: str, mixture: Mixture) -> tuple[str, ...]:
    """`all,emotion` as names; empty: all tasks together, and each by itself."""
    known: Sequence[str] = list(dict.fromkeys(task.name for task in mixture.tasks))
    return tuple(filter(None, text.split(","))) or (ALL, *known)
