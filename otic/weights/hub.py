"""Files from the Hugging Face hub, into its usual cache. Optional: everything also works with a file given by path."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from otic.core.errors import WeightsError
from otic.core.files import sha256
from otic.weights.catalogue import Entry

CONFIGS = ("config.json", "preprocessor_config.json")


def is_hub_id(name: str) -> bool:
    """`owner/name`, perhaps with `hf-hub:` in front."""
    owner, _, rest = name.removeprefix("hf-hub:").partition("/")
    return bool(owner and rest) and "/" not in rest and not owner.startswith((".", "~"))


def fetch(repository: str, file: str = "model.safetensors") -> Path:
    """The path of `file` in the local cache, downloaded when it is not there yet.

    Raises:
        WeightsError: when it is neither cached nor within reach, saying what to do instead.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(repository, file, local_files_only=not within_reach()))
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{repository}: no such folder here; not in the local cache, and the hub is out of reach. Where there is a "
            f"network, download {file} from hf.co/{repository}, and give its path in place of the name."
        ) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise WeightsError(f"{repository}: the hub has no {file!r} under this name. Check the spelling.") from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{repository}/{file}: the download failed ({_first_line(error)}). Try again, or give a path."
        ) from error


def within_reach() -> bool:
    """False when the hub's name cannot be resolved: asked once, where its own client would try for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True  # the proxy resolves names
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True


def fetch_model(repository: str, file: str = "model.safetensors") -> Path:
    """The weights of a repository, and beside them its configs where there are some.

    Raises:
        WeightsError: as `fetch`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    path = fetch(repository, file)
    for config in CONFIGS:
        with contextlib.suppress(EntryNotFoundError, LocalEntryNotFoundError):
            hf_hub_download(repository, config, local_files_only=not within_reach())
    return path


def download(entry: Entry) -> Path:
    """The file of a catalogue entry, checked against its published SHA-256 where there is one.

    Raises:
        WeightsError: as `fetch`; also when the authors share it only by hand, or when the sum differs.
    """
    if not entry.repository:
        raise WeightsError(
            f"{entry.name}: its authors share it by hand only ({entry.page}). Download it, and give its path."
        )
    path = fetch_model(entry.repository, entry.file)
    if entry.sha256 and sha256(path) != entry.sha256:
        raise WeightsError(
            f"{path}: its SHA-256 is not the published one of {entry.name}. Delete it and download it again."
        )
    return path


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
