"""`python -m benchmarks.multitask`: teach all tasks, and each alone; probe, align with words, ask; write the tables.

Everything done is kept under --out; stopped at any moment, the same command goes on. One core by default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import otic
from benchmarks import table
from benchmarks.__main__ import commit, machine
from benchmarks.multitask.answers import answers
from benchmarks.multitask.plan import METRIC, PROBED, TASKS, TEST, Plan, arms_of
from otic.core.files import write_text
from otic.data.mixture import read_mixture

ROOT = Path(__file__).parents[2]
START = "start"  # what the arms start from: `--init`, or random weights
WORDS = {  # of the aligned models: column -> (evaluation, protocol, metric)
    "ESC-10 zero-shot": ("zero-shot", "zero-shot", "accuracy"),
    "text to audio mAP@10": ("retrieval", "retrieval", "text_to_audio_mAP@10"),
    "audio to text mAP@10": ("retrieval", "retrieval", "audio_to_text_mAP@10"),
    "which order": ("retrieval", "choice", "choice_order"),
    "which class": ("retrieval", "choice", "choice_class"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multitask", description=__doc__)
    parser.add_argument("--out", default="runs/multitask", type=Path, help="where runs and scores are kept")
    parser.add_argument("--data", default=ROOT.parent / "shared/data", type=Path, help="folder of the recordings")
    parser.add_argument("--arms", default="", help="comma-separated: all, or tasks; by default all and each task")
    parser.add_argument("--recipe", default="caption_tiny")
    parser.add_argument("--init", default=None, help="a model that all arms start from; by default random weights")
    parser.add_argument("--steps", default=2000, type=int, help="updates of each arm: the compute")
    parser.add_argument("--align", default=1000, type=int, help="updates of each alignment with words")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a change of the recipe")
    parser.add_argument("--threads", default=1, type=int, help="cores")
    parser.add_argument("--stage", default="train,align,score,write", help="which of the stages, comma-separated")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plan = Plan(
        out=given.out, data=given.data, arms=arms_of(given.arms, read_mixture(TASKS)), recipe=given.recipe,
        init=given.init, steps=given.steps, align=given.align, settings=tuple(given.settings),
    )  # fmt: skip
    stages = given.stage.split(",")
    if "train" in stages:
        for arm in plan.arms:
            train(plan, arm, given.threads)
    if "align" in stages:
        for arm in (*plan.arms, START):
            align(plan, arm, given.threads)
    if "score" in stages:
        probes(plan), words(plan), [answers(plan, arm) for arm in plan.arms]
    if "write" in stages:
        write_text(plan.out / "multitask.md", page(plan))
        print(page(plan))


def train(plan: Plan, arm: str, threads: int = 1) -> None:
    """One arm: its tasks for the common number of updates."""
    otic.pretrain(
        plan.recipe, plan.file(arm), out=plan.run(arm), steps=plan.steps, init=plan.init, settings=plan.settings,
        threads=threads,
    )  # fmt: skip


def align(plan: Plan, arm: str, threads: int = 1) -> None:
    """The arm's encoder, as it is, brought together with the captions of scenes."""
    init = plan.init if arm == START else plan.run(arm)
    otic.pretrain(
        "clap_tiny", plan.data / "esc10_scenes", where=[_train("esc10_scenes")], out=plan.words(arm), init=init,
        steps=plan.align, threads=threads,
    )  # fmt: skip


def _train(data: str) -> str:
    return TEST[data].replace("=", "!=")


def probes(plan: Plan) -> dict[str, Any]:
    """{question: results.json} of linear probes: train part against the part that nobody heard."""
    models: dict[str, str | Path] = {arm: plan.run(arm) for arm in plan.arms}
    models |= {START: plan.init} if plan.init else {}
    return {name: _kept(plan, f"probe_{name}", models, plan.probed(name), ("linear",)) for name in PROBED}


def words(plan: Plan) -> dict[str, Any]:
    """{protocol: results.json} of the aligned models."""
    models: dict[str, str | Path] = {arm: plan.words(arm) for arm in (*plan.arms, START)}
    scenes = plan.data / "esc10_scenes"
    return {
        "zero-shot": _kept(plan, "zero_shot", models, plan.probed("esc10"), ("zero-shot",)),
        "retrieval": _kept(plan, "retrieval", models, scenes, ("retrieval", "choice")),
    }


def _kept(plan: Plan, name: str, models: Mapping[str, Any], data: Any, protocols: tuple[str, ...]) -> dict[str, Any]:
    """An evaluation that is made once for the same models."""
    folder = plan.out / "scores" / name
    done = folder / "results.json"
    if done.exists():
        found = dict(json.loads(done.read_text()))
        if set(models) <= {row["model"] for row in found["rows"]}:
            return found
    probed = "linear" in protocols
    otic.evaluate(dict(models), data, protocols=protocols, out=folder, baselines=probed, quiet=False)
    return dict(json.loads(done.read_text()))


def page(plan: Plan) -> str:
    """The tables in Markdown."""
    found, spoken = probes(plan), words(plan)
    shown = list(dict.fromkeys(row["model"] for results in found.values() for row in results["rows"]))
    probe = [[m, *(_cell(r, m, "linear", METRIC.get(q, "accuracy")) for q, r in found.items())] for m in shown]
    said = [[m, *(_cell(spoken[e], m, p, metric) for e, p, metric in WORDS.values())] for m in (*plan.arms, START)]
    told = {arm: answers(plan, arm) for arm in plan.arms}
    asked = list(dict.fromkeys(task for arm in told.values() for task in arm))
    answer = [[arm, *(_number(told[arm].get(task)) for task in asked)] for arm in plan.arms]
    about = (
        f"Each arm: `{plan.recipe}`, {plan.steps} updates, on all tasks of benchmarks/multitask/tasks.yaml or on one "
        f"of them. Commit {commit()}, {machine()}."
    )
    probed = (
        "Percent on clips that no arm heard, the probe being fitted on the others; 95 % bootstrap intervals. "
        "Unweighted average recall for emotion, accuracy elsewhere."
    )
    init = f" --init {plan.init}" if plan.init else ""
    command = f"    python -m benchmarks.multitask --steps {plan.steps} --align {plan.align}{init}"
    last = "Accuracy of the most probable of all answers, CIDEr-D for the captions of scenes."
    parts = [
        ["# One encoder, many tasks"], [command], [about],
        ["## Linear probe of the encoder"], table(["trained on", *found], probe), [probed],
        ["## After alignment with captions of scenes"], table(["trained on", *WORDS], said),
        ["## Answers"], table(["trained on", *asked], answer), [last],
    ]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _cell(results: Mapping[str, Any], model: str, protocol: str, metric: str) -> str:
    rows = [r for r in results["rows"] if (r["model"], r["protocol"]) == (model, protocol) and r["metric"] == metric]
    if not rows:
        return "-"
    low, high = (100 * v for v in rows[0]["ci95"])
    return f"{100 * rows[0]['value']:.1f} [{low:.0f}, {high:.0f}]"


def _number(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    scale, digits = (100, 1) if found["metric"] == "accuracy" else (1, 2)
    low, high = (scale * v for v in found["ci95"])
    return f"{scale * found['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
