"""A matrix as a picture: eight-bit PNG through a colour map, as a data URI."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from jaxtyping import Float, UInt8

STOPS = ("000004", "1c1044", "4f127b", "812581", "b5367a", "e55064", "fb8761", "fec287", "fcfdbf")  # dark to light


def encode(levels: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "256 3"]) -> bytes:
    """A PNG file of palette indices (PNG specification, colour type 3); row 0 is the top."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape
    rows = np.pad(levels, ((0, 0), (1, 0))).tobytes()  # a 0 before each row: no filter
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
    body = chunk(b"PLTE", palette.tobytes()) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def palette() -> UInt8[np.ndarray, "256 3"]:
    """256 colours between evenly spaced stops; lightness rises evenly, so it survives print and any eye."""
    colours = np.array([[int(s[k : k + 2], 16) for k in (0, 2, 4)] for s in STOPS], dtype=float)
    at, where = np.linspace(0, len(STOPS) - 1, 256), np.arange(len(STOPS))
    return np.stack([np.interp(at, where, c) for c in colours.T], axis=1).round().astype(np.uint8)


def picture(
    values: Float[np.ndarray, "t f"], low: float | None = None, high: float | None = None, hidden: float = np.nan
) -> str:
    """A spectrogram as `data:image/png;base64,...`: time to the right, the lowest band at the bottom.

    Args:
        low: The value drawn darkest; the 1st percentile when None.
        high: The value drawn lightest; the 99.5th percentile when None.
        hidden: NaN cells take this value (NaN: a neutral grey of their own).
    """
    values = np.where(np.isnan(values), hidden, values)
    known = values[np.isfinite(values)]
    low = float(np.percentile(known, 1)) if low is None else low
    high = float(np.percentile(known, 99.5)) if high is None else high
    colours = palette()
    colours[255] = (128, 134, 144)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 254
    levels = np.where(np.isnan(values), 255, np.nan_to_num(scaled)).round().astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(encode(levels.T[::-1], colours)).decode()
