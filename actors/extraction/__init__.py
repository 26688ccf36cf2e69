"""From any file to its text, safely: one seam, several engines behind it.

    async with open_extractor(ExtractionSettings()) as extractor:
        found = await extractor.extract("report.pdf", chunks)
        found.status, found.text, found.detail

Everything here is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attachments import AttachmentUnreadable, attachment_reader, base64_size_bytes, base64_stream
    from .choice import EngineChoice, EngineName, EngineState, ExtractionUnavailable, chosen_engine, engine_choice
    from .configured import configured_extraction
    from .extractor import ExtractionSettings, Extractor, open_extractor
    from .ocr import OcrHook
    from .pool import ExtractionPool
    from .recognition import DEFAULT_EXTENSIONS, extension_of, is_accepted
    from .results import DeadLetter, Extraction, ExtractionLimits, Status

__all__ = [
    "DEFAULT_EXTENSIONS",
    "AttachmentUnreadable",
    "DeadLetter",
    "EngineChoice",
    "EngineName",
    "EngineState",
    "Extraction",
    "ExtractionLimits",
    "ExtractionPool",
    "ExtractionSettings",
    "ExtractionUnavailable",
    "Extractor",
    "OcrHook",
    "Status",
    "attachment_reader",
    "base64_size_bytes",
    "base64_stream",
    "chosen_engine",
    "configured_extraction",
    "engine_choice",
    "extension_of",
    "is_accepted",
    "open_extractor",
]

_HOME = {
    "configured_extraction": "configured",
    **dict.fromkeys(
        ("EngineChoice", "EngineName", "EngineState", "ExtractionUnavailable", "chosen_engine", "engine_choice"),
        "choice",
    ),
    "ExtractionPool": "pool",
    "OcrHook": "ocr",
    **dict.fromkeys(("AttachmentUnreadable", "attachment_reader", "base64_size_bytes", "base64_stream"), "attachments"),
    **dict.fromkeys(("DEFAULT_EXTENSIONS", "extension_of", "is_accepted"), "recognition"),
    **dict.fromkeys(("DeadLetter", "Extraction", "ExtractionLimits", "Status"), "results"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME.get(name, 'extractor')}", __name__), name)
    globals()[name] = value
    return value
