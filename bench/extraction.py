"""How fast files become text: each engine through the extractor, beside the bare engine in a loop in this process.

    python bench/extraction.py FOLDER [--engine plain|embedded|tika] [--copies 20] [--workers 2]

FOLDER holds the files to read, say the corpus of the tests. Prints a table: files and megabytes per second, wall time, peak memory of this
process and of its children.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from callboard.actors.extraction import ExtractionSettings, ExtractionUnavailable, Status, open_extractor


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


async def through_the_extractor(engine: str, files: list[tuple[str, bytes]], workers: int) -> tuple[float, int]:
    readable = 0
    waiting = iter(files)
    settings = ExtractionSettings(engine=engine, workers=workers)  # type: ignore[arg-type]

    async with open_extractor(settings) as extractor:
        # The first file starts what has to be started; that is a price of the process and not of a file.
        await extractor.extract(files[0][0], chunks_of(files[0][1]))
        began = time.perf_counter()

        async def take() -> None:
            nonlocal readable
            for name, content in waiting:
                found = await extractor.extract(name, chunks_of(content))
                readable += found.status in (Status.TEXT, Status.TRUNCATED)

        async with trio.open_nursery() as nursery:
            for _ in range(2 * workers):
                nursery.start_soon(take)
        return time.perf_counter() - began, readable


def bare_engine(paths: list[Path], copies: int) -> tuple[float, int]:
    import extractous

    extractor = extractous.Extractor()
    # The engine prints a trace for each file it cannot read.
    silenced = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(2)
    os.dup2(silenced, 2)
    readable = 0
    began = time.perf_counter()
    try:
        for _ in range(copies):
            for path in paths:
                try:
                    text, _ = extractor.extract_file_to_string(str(path))
                except Exception:  # noqa: BLE001 - what it cannot read is counted by being absent
                    continue
                readable += bool(text.strip())
    finally:
        os.dup2(kept, 2)
    return time.perf_counter() - began, readable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", action="append", choices=["plain", "embedded", "tika"])
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.rglob("*") if path.is_file())
    files = [(path.name, path.read_bytes()) for path in paths] * options.copies
    megabytes = sum(len(content) for _, content in files) / 1e6
    print(
        f"{len(files)} files, {megabytes:.1f} MB; Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'engine':<28}{'files/s':>10}{'MB/s':>8}{'seconds':>10}{'with text':>11}")

    def row(name: str, seconds: float, readable: int) -> None:
        print(f"{name:<28}{len(files) / seconds:>10.1f}{megabytes / seconds:>8.2f}{seconds:>10.2f}{readable:>11}")

    for engine in options.engine or ["plain", "embedded", "tika"]:
        try:
            row(
                f"{engine}, {options.workers} workers", *trio.run(through_the_extractor, engine, files, options.workers)
            )
        except ExtractionUnavailable as unavailable:
            print(f"{engine:<28}{unavailable}")
    row("bare embedded engine, loop", *bare_engine(paths, options.copies))
    for who, name in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "largest child")):
        print(f"peak memory of {name}: {resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
