"""How numbers, times, sizes and parts are said in the sentences of the journal and on the page."""

from __future__ import annotations


def amount(count: int, one: str, many: str = "") -> str:
    """Say a number of things."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """Say how long."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min"
        if minutes < 120 and not rest
        else f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 120
        else f"{minutes} min {rest} s"
    )


def size(size_bytes: float) -> str:
    """Say how large."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def part(key: str) -> str:
    """Name a partition; a source that is one single part calls it nothing or a dot."""
    return "the source" if key in ("", ".") else f"“{key}”"
