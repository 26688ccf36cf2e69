"""Seeing text in images with a program of the operator's choice, such as `tesseract {file} stdout`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio

from ...runtime import blocking
from .choice import ExtractionUnavailable
from .recognition import extension_of

OcrHook: TypeAlias = Callable[[str, bytes], Awaitable[str]]
"""Takes the name and the bytes of an image, or of a PDF in which no text was found, and gives the text that it sees."""

FILE = "{file}"
_BYTES_OF_A_CHARACTER = 4
_COMPLAINT_BYTES_MAX = 2_000
_PIECE_BYTES = 65536


class OcrFailed(Exception):
    """The program ended with an error; the text is what it said."""


def check_ocr_command(command: Sequence[str]) -> None:
    """Raise `ExtractionUnavailable` if the program is not on this machine."""
    if command and shutil.which(command[0]) is None:
        raise ExtractionUnavailable(
            f"The OCR program {command[0]!r} is not here. Install it, or remove callboard.text_extraction.ocr_command."
        )


def command_hook(command: Sequence[str], folder: Path, characters_max: int) -> OcrHook:
    """A hook that runs a program for each file and takes what it prints, in UTF-8, up to the limit.

    `{file}` in the command stands for the path of the file, which is added at the end if nothing else says where it goes.
    """
    arguments = list(command) if any(FILE in part for part in command) else [*command, FILE]

    async def see(name: str, content: bytes) -> str:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / f"file{extension_of(name)}"
            await blocking(path.write_bytes, content)
            return await _run([part.replace(FILE, str(path)) for part in arguments], characters_max)

    return see


async def _run(command: list[str], characters_max: int) -> str:
    """What a program prints. Raises `OcrFailed` and `OSError`. Cancelled: the program is killed and reaped."""
    printed, complaint = bytearray(), bytearray()
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=b"", stdout=-1, stderr=-1, check=False, deliver_cancel=_kill)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(_take, process.stdout, printed, _BYTES_OF_A_CHARACTER * (characters_max + 1))
        nursery.start_soon(_take, process.stderr, complaint, _COMPLAINT_BYTES_MAX)
    if process.returncode != 0:
        said = " ".join(complaint.decode("utf-8", "replace").split())
        raise OcrFailed(f"it ended with code {process.returncode}: {said or 'it gave no reason'}")
    return printed.decode("utf-8", "replace")


async def _take(stream: trio.abc.ReceiveStream, taken: bytearray, bytes_max: int) -> None:
    # What is beyond the limit is read and dropped, so that the program can end.
    async with stream:
        async for piece in stream:
            taken += piece[: max(0, bytes_max - len(taken))]


async def _kill(process: trio.Process) -> None:
    process.kill()
