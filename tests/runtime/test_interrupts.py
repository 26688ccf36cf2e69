"""KeyboardInterrupt, wherever it strikes: everything is cleaned up, and it comes out bare."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
import attrs, trio
from callboard.runtime import Actor, ChildSpec, handles, open_system

@attrs.frozen
class Spin:
    pass

class Busy(Actor):
    @handles
    async def on_spin(self, message: Spin) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass

    async def stopping(self, reason):
        await trio.sleep(0.01)
        print("cleaned up", flush=True)

async def main():
    async with open_system() as system:
        await system.spawn(ChildSpec(name="other", start=Busy))
        ref = await system.spawn(ChildSpec(name="busy", start=Busy))
        if sys.argv[1] == "handler":
            await ref.tell(Spin())
            await trio.sleep(30)
        elif sys.argv[1] == "block":
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                pass
        else:
            trio.lowlevel.spawn_system_task(signal_soon)
            await trio.sleep(30)

async def signal_soon():
    await trio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("where", ["handler", "block", "sleep"])
def test_an_interrupt_cleans_up_and_comes_out_bare(where: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, where], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["cleaned up", "cleaned up", "interrupted"], done.stderr[-2000:]
    assert done.returncode == 0
