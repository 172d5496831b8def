"""The frames of an MP3 file, counted: its decoder's idea of the length is a guess, and noise can look like a frame.

Header fields: ISO 11172-3 §2.4.1.3 and ISO 13818-3; the "Xing"/"Info" frame is the encoders' convention.
"""

from __future__ import annotations

from dataclasses import dataclass

from otic.audio.opened import Opened

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
KBITS = {
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG-1, layer III
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG-2 and 2.5
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}
SEARCH = 1 << 16  # bytes in which the first frame must lie
CHAIN = 3  # frames in a row that are no accident
LONGEST = 1441  # bytes of the longest usual frame
LARGEST = 256 << 20  # bytes; larger files are not walked to the end
TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


@dataclass(frozen=True)
class Frames:
    """What a walk over the frames found."""

    start: int  # byte of the first frame, or -1 when there is none
    rate: int = 0
    samples: int = 0  # in the frames found
    declared: int | None = None  # samples according to the Xing/Info frame (encoder delay included)
    damaged: bool = False  # bytes between frames that are no frame
    cut: bool = False  # the last frame is incomplete

    @property
    def clean(self) -> bool:
        return not (self.damaged or self.cut or (self.declared or self.samples) != self.samples)


def tag_size(file: Opened) -> int:
    """Bytes of the ID3v2 tags at the beginning."""
    at = 0
    while len(head := file.at(at, 10)) == 10 and head[:3] == b"ID3":
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        at += 10 + size + (10 if head[5] & 16 else 0)
    return at


def find(file: Opened) -> Frames:
    """The first frame that others follow."""
    at = tag_size(file)
    data = file.at(at, SEARCH)
    place = data.find(b"\xff")
    while place >= 0:
        if _chain(data, place, whole=at + len(data) >= file.size):
            frame = _frame(data, place)
            assert frame is not None
            return Frames(at + place, frame[1], declared=_declared(data[place : place + LONGEST]))
        place = data.find(b"\xff", place + 1)
    return Frames(-1)


def walk(file: Opened, most: int | None = None) -> Frames:
    """Every frame, at about a microsecond each, or the first ones (`most`)."""
    first = find(file)
    if first.start < 0 or file.size > LARGEST:
        return first
    data = file.at(first.start, file.size - first.start if most is None else most * LONGEST)
    part = first.start + len(data) < file.size
    declared, at, samples, damaged = _declared(data), 0, 0, False
    if declared is not None:
        at = _frame(data, 0)[0]  # type: ignore[index]  # the Xing frame holds no sound
    while at < len(data):
        frame = _frame(data, at)
        if frame is None:
            if len(data) - at < 4 and data[at] == 0xFF:
                return Frames(first.start, first.rate, samples, None if part else declared, damaged, cut=not part)
            if data.startswith(TAGS, at) or not data[at:].strip(b"\0"):
                break
            damaged, at = True, _resync(data, at + 1)
            continue
        if at + frame[0] > len(data):
            return Frames(first.start, first.rate, samples, None if part else declared, damaged, cut=not part)
        at, samples = at + frame[0], samples + frame[2]
    return Frames(first.start, first.rate, samples, None if part else declared, damaged)


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Bytes, rate and samples of the frame that starts here, if one does."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    kbit, rate, pad = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1
    if version == 1 or layer == 0 or kbit in (0, 15) or rate == 3:
        return None
    hertz, bits = RATES[version][rate], 1000 * KBITS[3 if version == 3 else 2, layer][kbit - 1]
    if layer == 3:
        return (12 * bits // hertz + pad) * 4, hertz, 384
    samples = 576 if layer == 1 and version != 3 else 1152
    return samples // 8 * bits // hertz + pad, hertz, samples


def _chain(data: bytes, at: int, whole: bool) -> bool:
    """Whether frames of one rate follow each other from here (to the end of the data, if that is near)."""
    rate = None
    for i in range(CHAIN):
        frame = _frame(data, at)
        if frame is None or rate not in (None, frame[1]):
            return whole and i > 0 and (at >= len(data) or data.startswith(TAGS, at))
        at, rate = at + frame[0], frame[1]
    return True


def _declared(data: bytes) -> int | None:
    frame = _frame(data, 0)
    assert frame is not None
    mono, version = data[3] >> 6 == 3, data[1] >> 3 & 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    tag = data[4 + side : 16 + side]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 12 or not tag[7] & 1:
        return None
    return int.from_bytes(tag[8:12]) * frame[2]


def _resync(data: bytes, at: int) -> int:
    while (at := data.find(b"\xff", at)) >= 0:
        if _chain(data, at, whole=True):
            return at
        at += 1
    return len(data)
