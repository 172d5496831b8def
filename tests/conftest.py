"""Shared by all tests: where the golden tensors and the real recordings lie, and how to skip without them."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("OTIC_SHARED", ROOT.parent / "shared"))
torch.set_num_threads(1)

# On a shared machine the same commit must give the same verdict, however busy it is; new examples are looked for at
# the desk.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_addoption(parser):
    parser.addoption("--golden", default=str(SHARED / "golden"), help="folder with the reference sets")


@pytest.fixture(scope="session")
def golden(request):
    """`golden("eat")`: the folder of a reference set, or a skip that names it."""
    root = Path(request.config.getoption("--golden"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"reference set {name!r} is not under {root}")
        return root / name

    return find


@pytest.fixture(scope="session")
def recordings():
    """`recordings("esc10")`: a folder of real recordings, or a skip that names it."""

    def find(name: str) -> Path:
        if not (SHARED / "data" / name).exists():
            pytest.skip(f"recordings {name!r} are not under {SHARED / 'data'}")
        return SHARED / "data" / name

    return find
