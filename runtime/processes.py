"""Work in a process of its own: for what takes a whole core, holds the interpreter's lock, may crash, or may never return.

A process is started for each call and killed when its time is up. It is started from scratch, since a fork of a Trio process
is not safe, so a call costs the start of an interpreter: use it for work of a second, not of a millisecond.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import trio

from .lifecycle import RuntimeProblem
from .seams import current_faults, is_simulated

T = TypeVar("T")

_KILL_S: Final = 5.0
_STDERR_BYTES_MAX: Final = 2000
_CHILD: Final = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
answer, sys.stdout = sys.stdout.buffer, sys.stderr
try:
    function, arguments = pickle.load(sys.stdin.buffer)
    result = (True, function(*arguments))
except Exception as error:
    result = (False, error)
try:
    said = pickle.dumps(result)
except Exception as error:
    said = pickle.dumps((False, TypeError(f"what the worker returned or raised cannot be sent back: {error}")))
answer.write(said)
"""


class WorkerTimeout(RuntimeProblem):
    """The process did not return in time and was killed."""


class WorkerCrashed(RuntimeProblem):
    """The process ended without an answer."""


async def worker_process(function: Callable[..., T], *args: Any, timeout_s: float) -> T:
    """Call a function in a process of its own, and return what it returns or raise what it raises.

    The function, its arguments and its result must be picklable: a function at the top of a module that can be imported.
    Raises `WorkerTimeout` after `timeout_s`, and `WorkerCrashed` with the end of its standard error if it dies. Cancelled: the
    process is killed. In a simulation the function is called here.
    """
    faults = current_faults()
    if faults is not None:
        await faults.work(getattr(function, "__name__", repr(function)), timeout_s)
    if is_simulated():
        await trio.lowlevel.checkpoint()
        return function(*args)
    work = pickle.dumps(sys.path) + pickle.dumps((function, args))
    what = getattr(function, "__name__", repr(function))
    run = partial(
        trio.run_process,
        [sys.executable, "-c", _CHILD],
        stdin=work,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        deliver_cancel=_kill,
    )
    done: subprocess.CompletedProcess[bytes] | None = None
    with trio.move_on_after(timeout_s):
        done = await run()
    if done is None:
        raise WorkerTimeout(f"{what} did not return within {timeout_s:g} s, and its process was killed.")
    if done.returncode or not done.stdout:
        said = done.stderr[-_STDERR_BYTES_MAX:].decode(errors="replace").strip()
        raise WorkerCrashed(f"the process of {what} ended with code {done.returncode}: {said or 'it said nothing'}")
    # What comes back was written by our own child, which ran our own function.
    is_result, value = pickle.loads(done.stdout)  # noqa: S301
    if not is_result:
        raise value
    result: T = value
    return result


async def _kill(process: trio.Process) -> None:
    process.kill()
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _KILL_S):
        await process.wait()
