"""A custom connector as somebody may have written it: asyncio, own sleeps, lazy downloads."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace

from connectors_sdk.source import BaseDataSource, ConfigurableFieldValueError

EVENTS: list[str] = []


class LibrarySource(BaseDataSource):
    name = "Library"
    service_type = "library"
    advanced_rules_enabled = True
    incremental_sync_enabled = True
    dls_enabled = True

    @classmethod
    def get_default_configuration(cls):
        return {
            "shelves": {"label": "Shelves", "type": "int", "value": 3, "order": 1},
            "password": {"label": "Password", "type": "str", "sensitive": True, "order": 2},
            "rooms": {"label": "Rooms", "type": "list", "required": False, "default_value": "a,b", "order": 3},
            "strict": {"label": "Strict", "type": "bool", "display": "toggle", "value": False, "order": 4},
        }

    def tweak_bulk_options(self, options):
        options["concurrent_downloads"] = 3

    async def validate_config(self):
        if self.configuration["password"] == "wrong":
            raise ConfigurableFieldValueError("the password is not accepted")

    async def ping(self):
        await asyncio.sleep(0)
        if self.configuration["password"] == "down":
            raise OSError("the library is closed")

    def advanced_rules_validators(self):
        async def validate(rules):
            fine = isinstance(rules, list)
            return SimpleNamespace(is_valid=fine, validation_message="rules must be a list", rule_id="advanced_snippet")

        return SimpleNamespace(validate=validate)

    async def _content(self, number, doit=None, timestamp=None):
        if not doit:
            return None
        return {"_id": str(number), "_timestamp": timestamp, "_attachment": "aGVsbG8="}

    async def get_docs(self, filtering=None):
        try:
            rules = filtering.get_advanced_rules() if filtering and filtering.has_advanced_rules() else None
            for number in range(self.configuration["shelves"]):
                await asyncio.sleep(0)
                lazy = partial(self._content, number) if number % 2 else None
                yield (
                    {"_id": number, "_timestamp": "2026-01-01T00:00:00Z", "title": f"shelf {number}", "rules": rules},
                    lazy,
                )
        finally:
            EVENTS.append("generator closed")

    async def get_docs_incrementally(self, sync_cursor, filtering=None):
        yield {"_id": "new"}, None, "index"
        yield {"_id": "old"}, None, "delete"
        self._sync_cursor = {"seen": (sync_cursor or {}).get("seen", 0) + 1}

    async def get_access_control(self):
        yield {
            "_id": "ann",
            "identity": {"email": "ann@x"},
            "query": {"template": {"params": {"access_control": ["email:ann@x"]}}},
        }

    async def close(self):
        EVENTS.append("closed")


class SleepySource(LibrarySource):
    async def get_docs(self, filtering=None):
        try:
            yield {"_id": 1}, None
            await asyncio.sleep(3600)
            yield {"_id": 2}, None
        finally:
            EVENTS.append("generator closed")


class WithoutPing:
    get_default_configuration = get_docs = staticmethod(dict)
