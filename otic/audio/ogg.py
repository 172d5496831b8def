"""What the pages of an Ogg file say: decoders lose pages, and whole chained streams, without a word (RFC 3533)."""

from __future__ import annotations

from dataclasses import dataclass, field

from otic.audio.opened import Opened

CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}
TAIL = 140_000  # bytes that hold at least two pages
LONG_BLOCK = 8192  # frames of the largest Vorbis block
JOINED_LATE = 10  # seconds: a first position beyond this is a cut-in on a broadcast, and tells nothing of the length


@dataclass
class Pages:
    """What a walk over all pages found out about the first stream."""

    codec: str | None = None  # None: not one of CODECS
    rate: int = 0  # of the granule positions, per second
    skip: int = 0  # granules before the first sample to be heard
    first: int | None = None  # granule position of the first page that ends a packet of sound
    last: int = 0  # highest granule position
    ended: bool = False  # its last page is there, and says so
    damaged: bool = False  # bytes that are no page, or missing page numbers
    chained: bool = False  # another stream follows
    serial: bytes = b""
    number: int = field(default=-1, repr=False)  # of the page before

    @property
    def seconds(self) -> float | None:
        """The length it should have, if it can be told."""
        if not self.rate or self.first is None or self.first > JOINED_LATE * self.rate:
            return None
        return max(0, self.last - self.skip) / self.rate


def codec(file: Opened) -> str | None:
    """Which codec the first packet belongs to."""
    body = file.at(28, 8)
    return next((name for magic, name in CODECS.items() if body.startswith(magic)), None)


def walk(file: Opened) -> Pages:
    """Look at every page header, at a few microseconds each."""
    pages, at = Pages(codec=codec(file)), 0
    while at < file.size:
        head = file.at(at, 27 + 255)
        if head[:4] != b"OggS" or len(head) < 27:
            pages.damaged |= head[:4] != b"OggS"
            at = _next(file, at + 1)
            continue
        table = head[27 : 27 + head[26]]
        body = at + 27 + len(table)
        at = body + sum(table)
        if at <= file.size:
            _take(pages, head, file.at(body, 32) if head[5] & 2 else b"")
    return pages


def safe_seek(file: Opened) -> int:
    """The last frame to which libsndfile seeks correctly in a Vorbis file; 0 when it cannot be told.

    Within the last page it lands wrong: that page's position is where the sound is cut off, but libsndfile counts
    the samples of whole packets back from it.
    """
    tail, serial = file.at(max(0, file.size - TAIL), TAIL), file.at(14, 4)
    positions, at = set(), tail.find(b"OggS")
    while at >= 0:
        if tail[at + 14 : at + 18] == serial:
            positions.add(int.from_bytes(tail[at + 6 : at + 14], "little", signed=True))
        at = tail.find(b"OggS", at + 1)
    known = sorted(position for position in positions if position > 0)
    return max(0, known[-2] - LONG_BLOCK) if len(known) > 1 else 0


def _take(pages: Pages, head: bytes, packet: bytes) -> None:
    flags, serial, number = head[5], head[14:18], int.from_bytes(head[18:22], "little")
    granule = int.from_bytes(head[6:14], "little", signed=True)
    if not pages.serial:
        pages.serial = serial
        _describe(pages, packet)
    elif flags & 2 and (pages.ended or pages.last):
        pages.chained = True
    if serial != pages.serial or pages.chained:
        return
    pages.damaged |= number != pages.number + 1
    pages.number = number
    pages.ended |= bool(flags & 4)
    if granule > 0:
        pages.first = granule if pages.first is None else pages.first
        pages.last = max(pages.last, granule)


def _describe(pages: Pages, packet: bytes) -> None:
    """The clock of the granule positions, from the codec's first packet."""
    if pages.codec == "Vorbis":
        pages.rate = int.from_bytes(packet[12:16], "little")
    elif pages.codec == "Opus":  # always 48 kHz, whatever went in
        pages.rate, pages.skip = 48_000, int.from_bytes(packet[10:12], "little")


def _next(file: Opened, at: int) -> int:
    """Where the next page starts, or the end of the file."""
    step = 1 << 16
    while at < file.size:
        found = file.at(at, step + 3).find(b"OggS")
        if found >= 0:
            return at + found
        at += step
    return file.size
