"""`python -m benchmarks` runs every module here and writes benchmarks/RESULTS.md; with names, only those."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import torch

from benchmarks import Skipped
from otic.core import machine as here

HERE = Path(__file__).parent
HELPERS = {"__init__", "__main__", "clock", "work"}


def main() -> None:
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in HELPERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; by default all")
    chosen = parser.parse_args().names or names
    if wrong := set(chosen) - set(names):
        parser.error(f"unknown: {', '.join(sorted(wrong))}. Known: {', '.join(names)}.")
    old = sections(HERE / "RESULTS.md")
    for name in chosen:
        try:
            old[name] = section(name)
        except Skipped as reason:
            print(f"{name}: skipped, {reason}.", flush=True)
            continue
        print(old[name], flush=True)
    text = "# Benchmarks\n\nWritten by `python -m benchmarks`; each section names its commit and machine.\n\n"
    (HERE / "RESULTS.md").write_text(text + "\n".join(old[name] for name in names if name in old), encoding="utf-8")


def section(name: str) -> str:
    """One module's table in Markdown, under the first line of its docstring."""
    module = importlib.import_module(f"benchmarks.{name}")
    title = (module.__doc__ or name).strip().splitlines()[0].rstrip(".")
    lines = [f"## {name}: {title}", "", f"Commit {commit()}, {machine()}.", "", *module.rows()]
    return "\n".join(lines) + "\n"


def sections(path: Path) -> dict[str, str]:
    """What an earlier run wrote, by module, so that a partial run keeps the rest."""
    if not path.exists():
        return {}
    parts = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {part[3:].split(":", 1)[0]: part.rstrip("\n") + "\n" for part in parts}


def commit() -> str:
    """The commit these numbers are of."""
    return here.commit() or "unknown"


def machine() -> str:
    """Processor, threads in use, accelerator, torch, Python."""
    about = here.machine()
    gpu = f", {about['gpu']}" if about["gpu"] else ""
    return f"{about['cpu']}, {torch.get_num_threads()} threads{gpu}, torch {about['torch']}, Python {about['python']}"


if __name__ == "__main__":
    main()
