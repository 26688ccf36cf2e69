"""What Elasticsearch installs by itself and connectors rely on: the default pipeline, and the templates of their indices."""

from __future__ import annotations

from typing import Any

DEFAULT_PIPELINE = "search-default-ingestion"
_NOTE = (
    "step {{ _ingest.on_failure_processor_type }} ({{ _ingest.on_failure_processor_tag }}) of pipeline "
    "{{ _ingest.on_failure_pipeline }}: {{ _ingest.on_failure_message }}"
)
_HIDDEN = (
    "_attachment",
    "_attachment_indexed_chars",
    "_extracted_attachment",
    "_extract_binary_content",
    "_reduce_whitespace",
    "_run_ml_inference",
)


def _step(kind: str, tag: str, when: str | None, **options: Any) -> dict[str, Any]:
    noted = {"append": {"field": "_ingestion_errors", "value": _NOTE}}
    condition = {} if when is None else {"if": when}
    return {kind: {"tag": tag, **condition, **options, "on_failure": [noted]}}


_BINARY = "ctx?._extract_binary_content == true"
_SPACES = "ctx?._reduce_whitespace == true"

PIPELINES: dict[str, Any] = {
    DEFAULT_PIPELINE: {
        "version": 1,
        "description": "Turns attachments into text, tidies it, and takes away the fields that steer this",
        "_meta": {"managed": True, "managed_by": "Callboard node"},
        "processors": [
            _step(
                "attachment",
                "extract_attachment",
                _BINARY,
                field="_attachment",
                target_field="_extracted_attachment",
                ignore_missing=True,
                indexed_chars_field="_attachment_indexed_chars",
                remove_binary=False,
            ),
            _step(
                "set",
                "set_body",
                _BINARY,
                field="body",
                copy_from="_extracted_attachment.content",
                ignore_empty_value=True,
            ),
            _step(
                "gsub",
                "remove_replacement_chars",
                _BINARY,
                field="body",
                pattern="\ufffd",
                replacement="",
                ignore_missing=True,
            ),
            _step(
                "gsub",
                "remove_extra_whitespace",
                _SPACES,
                field="body",
                pattern=r"\s+",
                replacement=" ",
                ignore_missing=True,
            ),
            _step("trim", "trim_body", _SPACES, field="body", ignore_missing=True),
            _step("remove", "remove_meta_fields", None, field=list(_HIDDEN), ignore_missing=True),
        ],
    }
}
