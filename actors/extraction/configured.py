"""From what an operator wrote in `config.yml` to the settings of the extractor."""

from __future__ import annotations

from ..configuration import ExtractionServiceSettings, TextExtractionSettings
from .extractor import ExtractionSettings
from .results import ExtractionLimits


def configured_extraction(service: ExtractionServiceSettings, own: TextExtractionSettings) -> ExtractionSettings:
    """The settings that `extraction_service` and `callboard.text_extraction` mean together."""
    limits = ExtractionLimits(
        size_bytes_max=own.size_mib * 2**20,
        characters_max=own.characters,
        seconds_max=own.seconds,
        memory_bytes_max=own.memory_mib * 2**20,
    )
    return ExtractionSettings(
        engine=own.engine,
        limits=limits,
        workers=own.workers,
        more_extensions=own.more_extensions,
        ocr_command=own.ocr_command,
        service_url=service.host,
        service_timeout_s=service.timeout,
        service_file_pointers=service.use_file_pointers,
        service_chunk_size_bytes=service.stream_chunk_size,
        shared_folder=service.shared_volume_dir,
        tika_jar=own.tika_jar,
    )
