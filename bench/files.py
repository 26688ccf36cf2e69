"""What a sync of a folder of small files costs on our side, beside a bare loop that reads, serialises and posts them.

    python bench/files.py [FILES ...]                 by default 2000; 10000 100000 for the long form

Each row is a process of its own, so that its processor time and its peak memory are its own; the sink is another process, which
reads every `_bulk` and answers it (the one of `bench/sync.py`). The floor walks the folder with `os.scandir`, reads each file,
serialises a document of the same fields with orjson and posts it over two kept-alive connections, 500 documents a request.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import md5
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

BESIDE = Path(__file__).parent
INDEX = "bench-sync"
"""The only index whose documents the sink of `bench/sync.py` counts."""
PAGE = 500
FILES_PER_FOLDER = 500
TEXT = "The thunder sheet hangs upstage of the fly floor and is struck on cue forty-one. "


def make_files(root: Path, count: int) -> None:
    """Write so many text files of about 1 KB, 500 to a folder."""
    for number in range(count):
        folder = root / f"folder-{number // FILES_PER_FOLDER:05}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number:07}.txt").write_text(f"Cue {number}. " + TEXT * 12)


def floor(root: str, port: int) -> None:
    """Read, serialise, post."""
    import trio

    async def send(stream: trio.SocketStream, body: bytes) -> None:
        head = b"POST /%s/_bulk HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (INDEX.encode(), len(body))
        await stream.send_all(head + body)
        got = bytearray(await stream.receive_some(1 << 20))
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += await stream.receive_some(1 << 20)
        size = int(bytes(got[:end]).lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(got) < end + 4 + size:
            got += await stream.receive_some(1 << 20)
        orjson.loads(got[end + 4 :])

    async def half(pages: Iterator[tuple[os.DirEntry[str], ...]]) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            for page in pages:
                await send(stream, _operations(page))

    async def both() -> None:
        entries = _entries(root)
        pages = iter(lambda: tuple(islice(entries, PAGE)), ())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(half, pages)
            nursery.start_soon(half, pages)

    trio.run(both)


def _operations(page: tuple[os.DirEntry[str], ...]) -> bytes:
    parts = []
    for entry in page:
        status = entry.stat()
        one = md5(entry.path.encode(), usedforsecurity=False).hexdigest()
        fields = {"id": one, "path": entry.path, "size": status.st_size, "body": Path(entry.path).read_bytes().decode()}
        parts += [b'{"index":{"_id":"%s"}}\n' % one.encode(), orjson.dumps(fields), b"\n"]
    return b"".join(parts)


def _entries(root: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(root) as found:
        for entry in found:
            if entry.is_dir():
                yield from _entries(entry.path)
            else:
                yield entry


def ours(root: str, port: int, expected: int) -> None:
    """The whole engine over the source `dir`."""
    import trio

    from callboard import sync
    from callboard.sources.dir import Directory, DirectoryConfig

    source = Directory(DirectoryConfig(directory=root))
    report = trio.run(lambda: sync(source, f"http://127.0.0.1:{port}", index=INDEX))
    assert report.status == "completed", report.error
    assert not report.failed, report
    assert report.indexed + report.unchanged == expected, report


def _row(name: str, way: str, root: str, port: int, count: int) -> None:
    told = subprocess.run(
        [sys.executable, __file__, f"--{way}", root, str(port), str(count)], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = orjson.loads(told.stdout)
    print(
        f"{name:<28}{count / found['wall_s']:>13,.0f}{count / found['cpu_s']:>15,.0f}{found['peak_mb']:>11,.0f} MB",
        flush=True,
    )


def measured(way: str, root: str, port: int, count: int) -> None:
    """Do one way in this process and print what it cost, without the start of the interpreter."""
    import trio  # noqa: F401 - both ways need it; its import is not what is measured

    wall_s, cpu_s = time.perf_counter(), time.process_time()
    if way == "floor":
        floor(root, port)
    else:
        ours(root, port, count)
    print(
        orjson.dumps(
            {
                "wall_s": time.perf_counter() - wall_s,
                "cpu_s": time.process_time() - cpu_s,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        ).decode()
    )


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("--"):
        way, root, port, count = sys.argv[1:]
        measured(way.removeprefix("--"), root, int(port), int(count))
        return
    for count in [int(one) for one in sys.argv[1:]] or [2000]:
        with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
            make_files(Path(folder), count)
            print(f"\n{count:,} files of 1 KB{'documents/s':>27}{'per CPU-second':>15}{'peak':>13}")
            for name, ways in (("floor", ["floor"]), ("dir, first and again", ["first", "again"])):
                sink = [sys.executable, str(BESIDE / "sync.py"), "--sink", "0"]
                with subprocess.Popen(sink, stdout=subprocess.PIPE, text=True) as server:
                    try:
                        assert server.stdout is not None
                        port = int(server.stdout.readline())
                        for way in ways:
                            _row(name if way == "floor" else f"dir, {way}", way, folder, port, count)
                    finally:
                        server.terminate()


if __name__ == "__main__":
    main()
