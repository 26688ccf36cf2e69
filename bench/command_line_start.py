"""How much processor time it costs to start the command line, beside the interpreter alone.

    python bench/command_line_start.py [ROUNDS]

Prints processor time (user and system) of whole processes, best and median of the rounds, with load and versions.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass (floor)": ["-c", "pass"],
    "python -c 'import click' (floor)": ["-c", "import click"],
    "callboard --version": ["-m", "callboard", "--version"],
    "callboard --help": ["-m", "callboard", "--help"],
    "callboard sync --help": ["-m", "callboard", "sync", "--help"],
    "callboard completion bash": ["-m", "callboard", "completion", "bash"],
}


def cpu_ms(arguments: list[str]) -> float:
    """Processor time of one run, in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument(
        "rounds", metavar="ROUNDS", type=int, nargs="?", default=9, help="how often each command is run"
    )
    rounds = max(1, parser.parse_args().rounds)
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} rounds")
    print(f"{'command':<34} {'best ms':>8} {'median ms':>10}")
    # Interleaved, so that a busy moment of the machine falls on all of them.
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            taken[name].append(cpu_ms(arguments))
    for name, samples in taken.items():
        print(f"{name:<34} {min(samples):>8.0f} {statistics.median(samples):>10.0f}")


if __name__ == "__main__":
    main()
