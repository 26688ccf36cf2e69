"""What one sync is to do, as a value: decided before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from ...protocol import CompiledRules, Pipeline
from ...protocol.filtering import compile_rules

Kind: TypeAlias = Literal["full", "incremental", "access_control"]


@attrs.frozen(kw_only=True)
class SyncPlan:
    """The job of one sync."""

    index: str
    kind: Kind = "full"
    pipeline: Pipeline | None = None
    """None: documents are indexed as they are, and files are read here."""
    rules: CompiledRules = attrs.field(factory=lambda: compile_rules(()))
    advanced_rules: Any = None
    cursor: Any = None
    setup: bytes = b""
    """Fingerprint of everything but the documents that decides what is indexed."""
    text_locally: bool = False
    """Files are read here and become `body`, instead of travelling as `_attachment`."""
    read_content: bool = True
    job_id: str = ""
    connector_id: str = ""
    deletions_confirmed: bool = False
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """What the source's settings hold that no dead letter may quote."""
    worker: str = ""
    """Under which name this service works, where several share the job."""
    is_helped: bool = False
    """Another service runs the job: this one only lists some of its partitions."""
    goes_on: bool = False
    """An earlier run of the same job was suspended, or died."""

    @property
    def hidden_fields(self) -> Mapping[str, Any]:
        """What the pipeline wants to find in every content document."""
        pipeline = self.pipeline
        if pipeline is None or self.kind == "access_control":
            return {}
        return {
            "_extract_binary_content": pipeline.extract_binary_content,
            "_reduce_whitespace": pipeline.reduce_whitespace,
            "_run_ml_inference": pipeline.run_ml_inference,
        }
