"""Published tasks for models with words: a flat registry of small values, and the suites they belong to."""

from otic.evaluation.tasks.captions import CAPTIONS
from otic.evaluation.tasks.music import MUSIC
from otic.evaluation.tasks.page import markdown
from otic.evaluation.tasks.sound import SOUND
from otic.evaluation.tasks.speech import SPEECH
from otic.evaluation.tasks.task import SUITES, TASKS, BenchTask, DataSet, Suite, missing, of_suite, plain

for _task in (*SOUND, *MUSIC, *SPEECH, *CAPTIONS):
    TASKS.add(_task, _task.name)

__all__ = ["SUITES", "TASKS", "BenchTask", "DataSet", "Suite", "markdown", "missing", "of_suite", "plain"]
