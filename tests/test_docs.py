"""What the README and the pages show is run: every shell line and every Python block, in order, in one folder.

Only the amounts are made smaller, by the table below.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from otic.apps.cli import VERBS, main

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md") if p.name != "log.md")]
SMALLER = {
    r"--clips 300": "--clips 60",
    r"--minutes 3": "--steps 2 --set batch_size=4",
    r"--minutes 5": "--steps 1 --set batch_size=4 --set objective.clones=2",
    r"minutes=5": 'steps=1, settings=["batch_size=4", "objective.clones=2"]',
}


def blocks(page):
    text = (ROOT / page).read_text()
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S)


def shrink(code):
    for old, new in SMALLER.items():
        code = re.sub(old, new, code)
    return code


def run_shell(code):
    for line in code.splitlines():
        program, *args = shlex.split(line)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert (program, main([*args, "--quiet"])) == ("otic", 0), line
        assert out.getvalue(), line


def test_snippets_run(tmp_path, monkeypatch):
    """One test: the pages use what the README has made."""
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        names: dict[str, object] = {}
        for language, code in blocks(page):
            if language == "sh":
                run_shell(shrink(code))
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(shrink(code), page, "exec"), names)


def test_the_readme_has_both_kinds():
    assert {language for language, _ in blocks("README.md")} == {"sh", "python"}


def test_the_readme_lists_every_verb():
    listed = set(re.findall(r"^\| `otic ((?:data )?\w+)", (ROOT / "README.md").read_text(), re.M))
    expected = {f"{n} {m}" for n, v in VERBS.items() if not callable(v) for m in v} | {
        n for n, v in VERBS.items() if callable(v)
    }
    assert listed == expected


def test_the_readme_says_what_make_runs():
    """The commands without make are the recipes of the Makefile, with their variables filled in."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        command = re.search(rf"^{target}: setup.*\n\t(.*)$", makefile, re.M)[1]
        plain = command.replace("$(BIN)", ".venv/bin").replace("$(ARGS)", "").strip()
        assert f"    {plain}\n" in readme, plain
    assert "sh scripts/setup.sh" in makefile and "sh scripts/setup.sh" in readme


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target
