"""A worker program whose engine does what the file says: hang, crash, eat memory, babble, or give its text."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from callboard.actors.extraction.engine_worker import serve


def engine(path: str, characters: int, simple: bool) -> dict[str, Any]:
    content = Path(path).read_bytes()
    order = content.split()[1] if len(content.split()) > 1 else b""
    match order:
        case b"HANG":
            time.sleep(3600)
        case b"CHILD":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            with Path(content.split()[2].decode()).open("a") as noted:
                noted.write(f"{child.pid}\n")
            time.sleep(3600)
        case b"CRASH":
            os.abort()
        case b"CRASH-ONCE":
            mark = Path(content.split()[2].decode())
            if not mark.exists():
                mark.touch()
                os.abort()
        case b"HOG":
            hoard = []
            while True:
                hoard.append(bytearray(16 * 2**20))
        case b"NONSENSE":
            return {"status": "splendid"}
        case b"LONG":
            return {"status": "text", "text": "x" * (characters + 1)}
        case b"BLANK":
            return {"status": "text", "text": " \n\t"}
        case b"WHO":
            return {"status": "text", "text": str(os.getpid())}
    return {"status": "text", "text": content.decode("latin-1"), "metadata": {"suffix": Path(path).suffix}}


if __name__ == "__main__":
    serve(engine, sys.argv[1], int(sys.argv[2]))
