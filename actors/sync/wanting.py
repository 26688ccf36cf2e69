"""A document whose content has to be read before it can be sent, on its way to the downloads."""

from __future__ import annotations

import attrs

from .preparing import Wanted
from .segments import PartitionProgress, Segment

SMALL_FILES_AT_ONCE = 64
"""Small files that are read in one go: enough to make the way to a thread and back cheap, few enough to bound memory."""


@attrs.frozen
class Download:
    partition: PartitionProgress
    segment: Segment
    wanted: Wanted
