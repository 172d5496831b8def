"""Without a network the hub says what to do instead; with one, the file's sum is checked."""

import re

import pytest

from otic.core.errors import WeightsError
from otic.core.files import sha256
from otic.inference.load import load
from otic.weights import hub
from otic.weights.catalogue import CATALOGUE, Entry


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as download

    for module in (constants, download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_offline_says_where_the_file_is():
    with pytest.raises(WeightsError, match=r"out of reach.*hf\.co/worstchan/EAT-base_epoch30_pretrain.*its path"):
        hub.download(CATALOGUE["eat-base-30ep"])


def test_without_name_resolution_nobody_waits_for_retries(monkeypatch):
    import huggingface_hub.constants as constants

    def lost(*_args):
        raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "getaddrinfo", lost)
    assert not hub.within_reach()
    with pytest.raises(WeightsError, match="out of reach"):
        hub.download(CATALOGUE["eat-base-30ep"])
    monkeypatch.setattr(hub.socket, "getaddrinfo", lambda *_args: [])
    assert hub.within_reach()


def test_what_is_shared_by_hand_says_so():
    with pytest.raises(WeightsError, match=r"by hand only \(github"):
        hub.download(CATALOGUE["eat-base-10ep"])


def entry(**changes) -> Entry:
    values = {
        "name": "x",
        "system": "EAT",
        "architecture": "",
        "parameters": 1,
        "repository": "o/x",
        "file": "m",
        "licence": "MIT",
    }
    return Entry(**{**values, **changes})


def test_a_file_with_another_sum_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_bytes(b"weights")
    monkeypatch.setattr(hub, "fetch_model", lambda repository, file: {("o/x", "m"): path}[repository, file])
    assert hub.download(entry(sha256=sha256(path))) == path
    with pytest.raises(WeightsError, match="not the published one of x"):
        hub.download(entry(sha256="0" * 64))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/model", True),
        ("hf-hub:owner/model", True),
        ("./model", False),
        ("model", False),
        ("a/b/c", False),
        ("/a", False),
    ],
)
def test_what_a_hub_id_looks_like(name, expected):
    assert hub.is_hub_id(name) is expected


def test_catalogue_entries_are_complete():
    for name, e in CATALOGUE.items():
        assert e.name == name and e.parameters > 0 and e.licence and e.labels_used and e.paper and e.page
        assert bool(e.repository) == bool(e.file)
        assert e.sha256 == "" or re.fullmatch("[0-9a-f]{64}", e.sha256)
        assert all(0 < value <= 1 for value in e.scores.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/nothing", "runs/nothing: no such folder here; not in the local cache"),
        ("./nothing", r"\./nothing: no file or folder of this name"),
        ("nothing.safetensors", "no file or folder of this name"),
        ("gone.pt", "a link to what is not there"),
        ("https://hf.co/o/x", "an address.*owner/name"),
        ("eat-base-30", "Did you mean 'eat-base-30ep'"),
        ("", "no file or folder of this name"),
        ("empty", r"this folder holds no model\.safetensors\. Name"),
    ],
)
def test_a_name_of_nothing_is_answered_as_what_it_was_meant_for(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone.pt").symlink_to("away.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=message):
        load(name)
