"""Cutting a run of items into batches, bounded by count and by bytes; the first item of a batch always fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .operations import Operation


def batches(
    operations: Sequence[Operation], size_bytes_total: int, count_max: int, size_bytes_max: int
) -> Iterator[tuple[list[Operation], int]]:
    """Yield batches in order, each with its bytes. Only a single operation may be larger than the limit."""
    if operations and len(operations) <= count_max and size_bytes_total <= size_bytes_max:
        yield list(operations), size_bytes_total
        return
    batch: list[Operation] = []
    size_bytes = 0
    for operation in operations:
        more = len(operation.payload)
        if batch and (len(batch) >= count_max or size_bytes + more > size_bytes_max):
            yield batch, size_bytes
            batch, size_bytes = [], 0
        batch.append(operation)
        size_bytes += more
    if batch:
        yield batch, size_bytes
