"""The public names, one by one: they resolve, they are documented, and importing the package loads nothing heavy."""

import re
import subprocess
import sys
from pathlib import Path

import otic

ROOT = Path(__file__).parent.parent
NAMES = {
    "__version__", "load", "Model", "Embeddings", "pretrain", "evaluate", "open_source", "objectives",
    "OticError", "AudioError", "DataError", "ConfigError", "WeightsError", "OticWarning",
}  # fmt: skip


def test_the_public_names_are_these():
    assert set(otic.__all__) == NAMES
    assert set(dir(otic)) >= NAMES


def test_each_name_is_there():
    for name in NAMES:
        assert getattr(otic, name) is not None
    assert otic.objectives.EAT and otic.objectives.EATConfig
    assert issubclass(otic.AudioError, otic.OticError)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(otic, "nothing_of_the_kind")


def test_each_name_is_documented():
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "python.md").read_text(), re.M))
    assert listed == NAMES - {"__version__"}


def test_importing_otic_loads_nothing_heavy():
    heavy = ("torch", "numpy", "scipy", "sklearn", "rich", "tyro")
    code = f"import sys, otic; otic.OticError; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_version_is_that_of_the_project():
    import tomllib

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == otic.__version__
