"""What a model answers to the questions that it was taught, on clips that it never heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.multitask.plan import Plan
from otic.core.files import write_json
from otic.data.mixture import CAPTION, Task
from otic.data.rows import Source
from otic.evaluation import captions
from otic.evaluation.bootstrap import RESAMPLES, interval, resample
from otic.inference.caption import Writer, load_writer

AT_ONCE = 64  # clips read before they are heard


def answers(plan: Plan, arm: str) -> dict[str, Any]:
    """{task/data: {metric, value, ci95, n}} of the tasks that an arm was taught; kept once it is known."""
    kept = plan.out / "answers" / f"{arm}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    writer = load_writer(plan.run(arm))
    found = {f"{task.name}/{Path(str(task.data)).name}": _task(writer, plan, task) for task in plan.tasks(arm)}
    write_json(kept, found)
    return found


def _task(writer: Writer, plan: Plan, task: Task) -> dict[str, Any]:
    source = plan.tested(task)
    prompt = source.rows[0].extra["prompt"]
    return _captions(writer, source, prompt) if task.target == CAPTION else _choice(writer, source, prompt)


def _choice(writer: Writer, source: Source, prompt: str) -> dict[str, Any]:
    """Accuracy of the most probable of all answers that occur."""
    truth = [row.captions[0] for row in source.rows]
    options = sorted(set(truth))
    guess = np.concatenate([writer.answer(waves, prompt, options).argmax(1) for waves in _waves(writer, source)])
    right = np.array([options[g] == t for g, t in zip(guess, truth, strict=True)], float)
    return {"metric": "accuracy", "options": len(options), **_mean(right)}


def _captions(writer: Writer, source: Source, prompt: str) -> dict[str, Any]:
    """CIDEr-D against the references, and the other measures; one caption for the whole of each scene."""
    written = [s.text for waves in _waves(writer, source) for s in writer.caption(waves, prompt, window=60)]
    known = [row.captions for row in source.rows]
    each = captions.cider_d([captions.words(w) for w in written], [[captions.words(r) for r in k] for k in known])
    examples = [{"written": w, "references": list(k)} for w, k in list(zip(written, known, strict=True))[:8]]
    return {"metric": "cider_d", **_mean(each), "all": captions.score(written, known), "examples": examples}


def _waves(writer: Writer, source: Source) -> Any:
    rate = writer.model.sample_rate
    for first in range(0, len(source), AT_ONCE):
        yield [source.read(i, rate) for i in range(first, min(first + AT_ONCE, len(source)))]


def _mean(values: np.ndarray) -> dict[str, Any]:
    """The mean with its bootstrap interval over clips."""
    weights = resample([len(values)], 0, RESAMPLES)[0]
    means = weights @ values / weights.sum(1)
    return {"value": float(values.mean()), "ci95": interval(means), "n": len(values)}
