"""How fast files become text: each engine through the extractor and through a whole sync into the built-in node, beside the bare
engine in a loop in this process.

    python bench/extraction.py FOLDER [--engine plain|embedded|tika|service] [--copies 20] [--workers 2]

FOLDER holds the files to read, say the corpus of the tests (`python bench/extraction.py --corpus FOLDER` has them made). `service` asks an
extraction service over HTTP: `callboard extraction-service` with the embedded engine, in a process of its own. Each engine has three rows:
through the extractor, through a sync that reads files here, and through a sync that sends them as attachments to the pipeline of the
built-in node. Prints a table: files and megabytes per second, wall time, peak memory of this process and of its children.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from callboard.actors.extraction import (
    DEFAULT_EXTENSIONS,
    ExtractionSettings,
    ExtractionUnavailable,
    Status,
    attachment_reader,
    is_accepted,
    open_extractor,
)
from callboard.actors.sync import sync
from callboard.node import open_node
from callboard.protocol import Pipeline
from callboard.protocol.store import Target, open_store
from callboard.sources.source import ContentRef, Document, Item, Partition, Source

ENGINES = ("plain", "embedded", "service", "tika")


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


def settings_for(engine: str, workers: int, url: str | None, jar: Path | None) -> ExtractionSettings:
    return ExtractionSettings(engine=engine, workers=workers, service_url=url, tika_jar=jar)  # type: ignore[arg-type]


@contextmanager
def service_process(workers: int) -> Iterator[str]:
    """`callboard extraction-service` in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "callboard", "extraction-service", "--port", "0", "--engine", "embedded"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split(" at ")[1].split()[0]
        finally:
            process.terminate()


async def through_the_extractor(
    settings: ExtractionSettings, files: list[tuple[str, bytes]], workers: int
) -> tuple[float, int]:
    readable = 0
    waiting = iter(files)

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


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Memory(Source[NoConfig]):
    """Gives the files that are in memory already, so that only the sync itself is measured."""

    service_type = "memory"
    name = "Memory"
    Config = NoConfig

    def __init__(self, files: list[tuple[str, bytes]]) -> None:
        super().__init__(NoConfig())
        self.files = files

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncIterator[Item | list[Item]]:
        yield [
            Document(str(at), {}, content=ContentRef(name, {"at": at}, len(content)))
            for at, (name, content) in enumerate(self.files)
        ]

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        yield chunks_of(self.files[content.data["at"]][1])


async def through_a_sync(
    settings: ExtractionSettings, files: list[tuple[str, bytes]], pipeline: Pipeline | None
) -> tuple[float, int]:
    async with (
        open_extractor(settings) as extractor,
        open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
        open_store(Target(embedded=node.app)) as store,
    ):
        await extractor.extract(files[0][0], chunks_of(files[0][1]))
        began = time.perf_counter()
        report = await sync(Memory(files), store, index="bench", extractor=extractor, pipeline=pipeline)
        seconds = time.perf_counter() - began
        assert report.status == "completed", report.error
        told = await store.client.count(index="bench", query={"exists": {"field": "body"}})
    return seconds, int(told["count"])


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


def make_corpus(folder: Path) -> None:
    """Have the tests make their files, with pandoc and LibreOffice, and copy them into the folder."""
    tests = Path(__file__).parent.parent / "tests" / "extraction"
    with tempfile.TemporaryDirectory() as scratch:
        selection = f"{tests / 'test_corpus.py'}::test_every_format_of_real_programs_gives_its_words"
        subprocess.run([sys.executable, "-m", "pytest", "-q", selection, f"--basetemp={scratch}/made"], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        made = [*Path(scratch, "made").rglob("*"), *(tests / "samples").iterdir()]
        for path in made:
            if (
                path.is_file()
                and not path.is_symlink()
                and path.suffix in DEFAULT_EXTENSIONS
                and "profile" not in path.parts
            ):
                name = f"{path.parent.name}-{path.name}"
                shutil.copyfile(path, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", action="append", choices=list(ENGINES))
    parser.add_argument("--tika-jar", type=Path)
    parser.add_argument("--corpus", action="store_true", help="make the corpus of the tests in FOLDER, and end")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.corpus:
        make_corpus(options.folder)
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    # What a sync would not read is left out everywhere, so that all rows tell of the same files.
    paths = sorted(path for path in options.folder.rglob("*") if path.is_file() and is_accepted(path.name))
    files = [(path.name, path.read_bytes()) for path in paths] * options.copies
    megabytes = sum(len(content) for _, content in files) / 1e6
    print(
        f"{len(files)} files, {megabytes:.1f} MB; Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'engine':<28}{'files/s':>10}{'MB/s':>8}{'seconds':>10}{'with text':>11}")

    def row(name: str, seconds: float, readable: int) -> None:
        print(f"{name:<28}{len(files) / seconds:>10.1f}{megabytes / seconds:>8.2f}{seconds:>10.2f}{readable:>11}")

    for engine in options.engine or ENGINES:
        served = service_process(options.workers) if engine == "service" else nullcontext(None)
        with served as url:
            settings = settings_for(engine, options.workers, url, options.tika_jar)
            try:
                row(
                    f"{engine}, {options.workers} workers",
                    *trio.run(through_the_extractor, settings, files, options.workers),
                )
                row(f"{engine}, sync reads", *trio.run(through_a_sync, settings, files, None))
                row(f"{engine}, pipeline reads", *trio.run(through_a_sync, settings, files, Pipeline()))
            except ExtractionUnavailable as unavailable:
                print(f"{engine:<28}{unavailable}")
    row("bare embedded engine, loop", *bare_engine(paths, options.copies))
    for who, name in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "largest child")):
        print(f"peak memory of {name}: {resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
