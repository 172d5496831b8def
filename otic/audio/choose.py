"""Which decoder reads a file: soundfile where it can, else PyAV where it is installed."""

from __future__ import annotations

import soundfile as sf

from otic.audio import mpeg
from otic.audio.containers import format_of, refusal
from otic.audio.decode import Decoder, SoundfileDecoder, reason_of
from otic.audio.opened import Opened
from otic.audio.pyav import PyAVDecoder, is_installed
from otic.core.errors import AudioError

ONLY_PYAV = {  # our name of the format: how to call it
    "mp4": "MP4 (m4a, mp4, mov)",
    "matroska": "Matroska (mka, mkv, webm)",
    "asf": "ASF (wma)",
    "aac": "raw AAC",
    "amr": "AMR",
    "flv": "Flash video",
    "avi": "AVI",
    "wavpack": "WavPack",
    "ape": "Monkey's Audio",
}


def open_decoder(file: Opened) -> tuple[Decoder, str]:
    """The decoder for a file, and the format its content says it has.

    Raises:
        AudioError: not decodable here; the kind says why.
    """
    kind = format_of(file)
    if kind in ONLY_PYAV:
        return _by_pyav(file, kind, None), kind
    refused = None
    if kind == "mp3" and mpeg.find(file).start < 0:
        raise refusal(file, kind, "no frames")
    if kind == "unknown" and file.at(0, 1) == b"\xff":  # libsndfile would try to hear MP3 in it
        refused = refusal(file, kind, "no known signature")
    else:
        try:
            decoder = SoundfileDecoder(file, quiet=kind == "mp3" and not mpeg.walk(file, most=100).clean)
            return (_longer(decoder, file) if kind == "mp3" else decoder), kind
        except (sf.SoundFileError, TypeError) as error:  # TypeError: by its name it would hold bare samples
            refused = refusal(file, kind, reason_of(error))
    if refused.kind == "unsupported_format" or kind == "mp3":
        return _by_pyav(file, kind, refused), kind
    raise refused


def _longer(decoder: SoundfileDecoder, file: Opened) -> Decoder:
    """PyAV's decoder for an MP3 without a length, of which libsndfile would decode only what it guesses."""
    if mpeg.find(file).declared is not None or not is_installed():
        return decoder
    frames = mpeg.walk(file)
    if frames.samples - (decoder.frames or 0) < 0.1 * frames.rate + 2 * 1152:
        return decoder
    decoder.close()
    return PyAVDecoder(file, mp3=True)


def _by_pyav(file: Opened, kind: str, refused: AudioError | None) -> Decoder:
    """PyAV's decoder; without it, or when it fails as well, the best reason there is."""
    if not is_installed():
        if refused is not None and kind != "ogg":
            raise refused
        what = ONLY_PYAV.get(kind, "this kind of Ogg")
        text = f"{file.name}: {what} needs PyAV, which is not installed. Run: pip install 'otic[av]'"
        raise AudioError(text, "unsupported_format")
    try:
        return PyAVDecoder(file, mp3=kind == "mp3")
    except AudioError as error:
        raise (refused if refused is not None and error.kind == "corrupt" else error) from None
