"""Which format the bytes are in, why a decoder refused them, and what is wrong with those it accepted."""

from __future__ import annotations

from dataclasses import dataclass

from otic.audio import chunks, mpeg, ogg
from otic.audio.opened import Opened
from otic.core.errors import AudioError

MAGIC = (  # offset, bytes, our name
    (8, b"WAVE", "wav"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (0, b".snd", "au"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75", "asf"),
    (0, b"riff", "w64"),
    (0, b"caff", "caf"),
    (0, b"#!AMR", "amr"),
    (0, b"FLV\x01", "flv"),
    (0, b"wvpk", "wavpack"),
    (0, b"MAC ", "ape"),
    (8, b"AVI ", "avi"),
)
MOST_RATE, MOST_CHANNELS = 1_000_000, 1024  # beyond these a header is damaged
LEAST_RATE = 1000  # below this, sound for people is not what the file holds
PCM = (1, 3, 6, 7, 0xFFFE)  # WAVE format tags which need the number of bits


@dataclass(frozen=True)
class Flaw:
    """Something wrong with a sound that could be decoded."""

    kind: str
    text: str


@dataclass(frozen=True)
class Claims:
    """What a container says of its content, beside what its decoder says."""

    flaws: tuple[Flaw, ...] = ()
    seconds: float | None = None  # the length it should have, when the decoder's own claim is not to be trusted
    trusted: bool = True  # whether the decoder's claim of the length is
    noisy: bool = False  # libmpg123 would comment on it


def format_of(file: Opened) -> str:
    """The format by content (names and extensions lie), or "unknown"."""
    head = file.at(0, 16)
    for offset, magic, name in MAGIC:
        if head.startswith(magic, offset):
            return name
    after = file.at(mpeg.tag_size(file), 4)  # some put ID3 in front of FLAC and AAC, too
    if after == b"fLaC":
        return "flac"
    if after[:1] == b"\xff" and len(after) > 1 and after[1] & 0xF6 == 0xF0:
        return "aac"
    return "mp3" if head[:3] == b"ID3" or mpeg.find(file).start >= 0 else "unknown"


def claims(file: Opened, kind: str, whole: bool) -> Claims:
    """What the headers of a decodable file give away. `whole`: it is read to its end, so all of it may be looked at."""
    if kind in ("wav", "aiff", "au"):
        return _lengths({"wav": chunks.wav, "aiff": chunks.aiff, "au": chunks.au}[kind](file))
    if kind == "ogg" and whole:
        return _pages(ogg.walk(file))
    if kind == "mp3":
        return _frames(mpeg.walk(file)) if whole else Claims(trusted=False)
    return Claims()


def _lengths(header: chunks.Header) -> Claims:
    if header.declared is None or header.present >= header.declared:
        return Claims()
    text = f"the header promises {header.declared} bytes of samples, {header.present} are there"
    return Claims((Flaw("truncated", text),))


def _pages(pages: ogg.Pages) -> Claims:
    flaws = []
    if pages.damaged:
        flaws.append(Flaw("corrupt", "pages are missing or damaged in the middle"))
    if not pages.ended:
        flaws.append(Flaw("truncated", "the end of the stream is missing"))
    if pages.chained:
        flaws.append(Flaw("chained_streams", "several streams follow each other; only the first is read"))
    return Claims(tuple(flaws), pages.seconds)


def _frames(frames: mpeg.Frames) -> Claims:
    flaws = []
    if frames.damaged:
        flaws.append(Flaw("corrupt", "bytes that are no MP3 frame lie between the frames"))
    if frames.declared and frames.samples < frames.declared - 1152:
        part = f"{frames.samples / frames.rate:.2f} s of {frames.declared / frames.rate:.2f} s"
        flaws.append(Flaw("truncated", f"only {part} of frames are there"))
    seconds = max(0, frames.samples - 2 * 1152) / frames.rate if frames.samples else None  # less the codec's delays
    return Claims(tuple(flaws), seconds, trusted=False, noisy=not frames.clean)


def refusal(file: Opened, kind: str, reason: str) -> AudioError:
    """Why a decoder could not open the file, as the error to raise."""
    name = file.name
    if kind == "wav":
        return _wav_refusal(file, reason)
    if kind == "mp3":
        if mpeg.tag_size(file) and mpeg.find(file).start < 0:
            return AudioError(
                f"{name}: an ID3 tag, but no sound after it. Fetch or export the file again.", "empty_audio"
            )
        return AudioError(f"{name}: a damaged MP3 file ({reason}). Fetch or export it again.", "corrupt")
    if kind == "ogg" and ogg.codec(file) is None:
        return AudioError(
            f"{name}: an Ogg file without a sound stream known here. Convert it to WAV.", "unsupported_format"
        )
    if kind in ("aiff", "au", "flac", "ogg", "w64", "caf"):
        return AudioError(f"{name}: a damaged {kind.upper()} file ({reason}). Fetch or export it again.", "corrupt")
    if file.head.startswith(b"version https://git-lfs"):
        return AudioError(f"{name}: a pointer of git-lfs, not the sound itself. Fetch it: git lfs pull.", "not_fetched")
    return AudioError(
        f"{name}: not a sound format known here ({reason}). Convert it to WAV or FLAC.", "unsupported_format"
    )


def _wav_refusal(file: Opened, reason: str) -> AudioError:
    header, name = chunks.wav(file), file.name
    if header.data_first:
        return AudioError(
            f"{name}: a WAV file whose samples come before their description. Export it again.", "bad_header"
        )
    if header.codec is None or header.channels is None:
        return AudioError(f"{name}: a WAV file cut within its header. Fetch or export it again.", "corrupt")
    for what, value, most in (
        ("sample rate", header.rate, MOST_RATE),
        ("channel count", header.channels, MOST_CHANNELS),
    ):
        if not value or value > most:
            return AudioError(f"{name}: the WAV header says {what} {value}. Export it again.", "bad_header")
    if not header.bits and header.codec in PCM:
        return AudioError(f"{name}: the WAV header says 0 bits per sample. Export it again.", "bad_header")
    if header.declared is None:
        return AudioError(f"{name}: a WAV file cut within its header. Fetch or export it again.", "corrupt")
    if header.codec in PCM:
        return AudioError(f"{name}: a damaged WAV header ({reason}). Export it again.", "bad_header")
    text = f"{name}: a WAV file in codec 0x{header.codec:04x}, which is not known here. Convert it to PCM."
    return AudioError(text, "unsupported_format")


def empty(file: Opened, kind: str) -> AudioError:
    """Why a file that opens holds no samples."""
    header = chunks.wav(file) if kind == "wav" else chunks.Header()
    if header.after and not header.declared:
        text = f"the header says 0 samples, but {header.after} bytes follow (a recording never closed). Mend the header"
        return AudioError(f"{file.name}: {text}.", "empty_audio")
    return AudioError(f"{file.name}: a header without any samples. Fetch or export it again.", "empty_audio")
