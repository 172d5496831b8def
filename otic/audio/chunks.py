"""What WAV, AIFF and AU headers claim, read apart from the decoder: decoders mend a wrong length silently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from otic.audio.opened import Opened

Order = Literal["little", "big"]
MOST_CHUNKS = 1000  # a file of millions of empty chunks is not worth walking


@dataclass(frozen=True)
class Header:
    """The claims of a header; None where it has no such chunk."""

    data_first: bool = False  # the samples come before the chunk that describes them
    codec: int | None = None  # WAVE format tag
    channels: int | None = None
    rate: int | None = None
    bits: int | None = None
    declared: int | None = None  # bytes of sample data according to the header
    present: int = 0  # bytes of sample data that are there
    after: int = 0  # bytes from the beginning of the sample data to the end of the file


def wav(file: Opened) -> Header:
    """The claims of a RIFF, RIFX or RF64 file."""
    order: Order = "big" if file.at(0, 4) == b"RIFX" else "little"
    claims: dict[str, Any] = {}
    for name, start, size in _chunks(file, order):
        if name == b"ds64" and "long" not in claims:  # EBU Tech 3306: what 32 bits cannot hold
            claims["long"] = int.from_bytes(file.at(start + 8, 8), order)
        elif name == b"fmt " and "codec" not in claims:
            body = file.at(start, 16)
            if len(body) == 16:
                fields = [int.from_bytes(body[a:b], order) for a, b in ((0, 2), (2, 4), (4, 8), (14, 16))]
                claims |= dict(zip(("codec", "channels", "rate", "bits"), fields, strict=True))
        elif name == b"data":
            size = claims.get("long", size) if size == 0xFFFFFFFF else size
            claims |= _data(file, start, size) | {"data_first": "codec" not in claims}
            break
    claims.pop("long", None)
    return Header(**claims)


def aiff(file: Opened) -> Header:
    """The claims of an AIFF or AIFC file about the amount of data."""
    for name, start, size in _chunks(file, "big"):
        if name == b"SSND":
            return Header(**_data(file, start, size))
    return Header()


def au(file: Opened) -> Header:
    """The claims of a Sun AU file about the amount of data."""
    head = file.at(0, 12)
    start, size = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    return Header() if size == 0xFFFFFFFF else Header(**_data(file, start, size))


def _data(file: Opened, start: int, size: int) -> dict[str, Any]:
    after = max(0, file.size - start)
    return {"declared": size, "present": min(size, after), "after": after}


def _chunks(file: Opened, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and declared size of each chunk of an IFF-like file."""
    at = 12
    for _ in range(MOST_CHUNKS):
        head = file.at(at, 8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], order)
        yield head[:4], at + 8, size
        at += 8 + size + size % 2
