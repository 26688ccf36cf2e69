"""The program of a worker process: reads files one after another with an engine that may hang, crash or eat memory.

Speaks length-prefixed frames on standard input and output: a request is a JSON header (`name`, `characters`, `seconds`, `simple`, and `path`
or `size`) followed by `size` bytes; an answer is one JSON object. It is started by path and imports nothing of ours but its
neighbours, so that a new worker is there within milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

Answer: TypeAlias = dict[str, Any]
Engine: TypeAlias = Callable[[str, int, bool], Answer]
"""Takes a path, the most characters wanted, and whether the simple reader should be used; returns `status`, `text`, `metadata`, `detail`."""

_LENGTH = struct.Struct(">I")
_GRACE_S = 10.0


def serve(engine: Engine, folder: str, memory_bytes_max: int) -> None:
    """Answer requests until standard input ends."""
    requests, answers = _private_streams()
    # Address space is no measure for an engine that reserves gigabytes and uses a few; RLIMIT_DATA counts what it can write to.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=folder) as own:
        while (header := _read_frame(requests)) is not None:
            request = json.loads(header)
            # Should the parent die while the engine hangs, the kernel ends this process, whoever holds the interpreter's lock.
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE_S)
            answer = _answer(engine, request, requests, own)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _write_frame(answers, json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))
            if answer.get("worn_out"):
                return


def _answer(engine: Engine, request: dict[str, Any], requests: IO[bytes], own: str) -> Answer:
    path = request.get("path")
    written = None
    if path is None:
        content = requests.read(request["size"])
        written = Path(own) / ("content" + request["extension"])
        written.write_bytes(content)
        path = str(written)
    try:
        return engine(path, request["characters"], request["simple"])
    except MemoryError:
        return {"status": "too_large", "detail": "It needs more memory than the limit.", "worn_out": True}
    finally:
        if written is not None:
            written.unlink(missing_ok=True)


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Take standard input and output for the frames, so that whatever an engine prints goes nowhere."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    return requests, answers


def _read_frame(stream: IO[bytes]) -> bytes | None:
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    content = stream.read(length)
    return content if len(content) == length else None


def _write_frame(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def extractous_engine() -> Engine:
    """The embedded engine: Apache Tika, compiled ahead of time."""
    import extractous  # type: ignore[import-untyped]  # the package has no type hints

    documents, tables = (
        runpy.run_path(str(Path(__file__).with_name(neighbour))) for neighbour in ("office_open_xml.py", "xlsb.py")
    )
    engine_fails_on, engine_loses_cells = documents["engine_fails_on"], tables["engine_loses_cells"]
    is_office_open_xml = documents["is_office_open_xml"]
    read_office_open_xml, not_readable = documents["read_office_open_xml"], documents["NotReadable"]
    binary_cells = tables["binary_cells"]
    extractor_class = extractous.Extractor

    def read_simply(path: str, characters: int, why: str) -> Answer:
        try:
            text, metadata = read_office_open_xml(path, characters, binary_cells)
        except not_readable as error:
            return {"status": "corrupt", "detail": why or str(error)}
        return {"status": "text", "text": text, "metadata": metadata, "detail": "", "engine": documents["OWN_READER"]}

    def read(path: str, characters: int, simple: bool) -> Answer:
        if simple:
            return read_simply(path, characters, "")
        if engine_fails_on(path) or engine_loses_cells(path):
            answer = read_simply(path, characters, "")
            if answer["status"] == "text":
                return answer
        # One character more than wanted tells a text that fits from one that was cut.
        extractor = extractor_class().set_extract_string_max_length(min(characters + 1, 2**31 - 1))
        try:
            text, metadata = extractor.extract_file_to_string(path)
        except Exception as error:  # noqa: BLE001 - a foreign engine; what it raises is the answer
            broken = "Jni" in str(error)
            answer = _of_error(str(error))
            if answer["status"] in ("corrupt", "failed") and is_office_open_xml(path):
                answer = {**answer, **read_simply(path, characters, answer["detail"])}
            # After an error inside its virtual machine (which may be want of memory) the engine is not to be trusted any more.
            return {**answer, "worn_out": broken}
        return {
            "status": "text",
            "text": text,
            "metadata": {key: ", ".join(values) for key, values in metadata.items()},
        }

    return read


def _of_error(text: str) -> Answer:
    """What the engine's complaint means for the file. It offers nothing but a sentence."""
    lowered = text.lower()
    if "encrypted" in lowered or "password" in lowered:
        return {"status": "encrypted", "detail": "It is protected by a password."}
    if "must have > 0 bytes" in lowered:
        return {"status": "empty", "detail": ""}
    if "write limit" in lowered or "zip bomb" in lowered:
        return {"status": "too_large", "detail": "It unpacks to far more than its size."}
    sentence = text.removeprefix("ParseError(").removesuffix(")").strip('"').removeprefix("Parse error occurred : ")
    return {"status": "corrupt", "detail": f"The engine cannot read it: {sentence[:300]}"}


def main() -> None:
    """Run as a worker: `engine_worker.py FOLDER MEMORY_BYTES`."""
    # Ctrl-C in a terminal reaches the whole process group; the parent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    serve(extractous_engine(), sys.argv[1], int(sys.argv[2]))


if __name__ == "__main__":
    main()
