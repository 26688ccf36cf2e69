"""The base class and the configuration object, as far as data sources use them."""

from __future__ import annotations


class ConfigurableFieldValueError(Exception):
    pass


class DataSourceConfiguration:
    def __init__(self, config):
        self._config = config

    def __getitem__(self, key):
        entry = self._config[key]
        return entry["value"] if isinstance(entry, dict) else entry

    def get(self, key, default=None):
        return self[key] if key in self._config else default


class BaseDataSource:
    name = None
    service_type = None
    basic_rules_enabled = True
    advanced_rules_enabled = False
    dls_enabled = False
    incremental_sync_enabled = False

    def __init__(self, configuration):
        if not isinstance(configuration, DataSourceConfiguration):
            raise TypeError("a DataSourceConfiguration is needed")
        self.configuration = configuration
        self._logger = None
        self._sync_cursor = None

    @classmethod
    def get_default_configuration(cls):
        raise NotImplementedError

    def set_logger(self, logger):
        self._logger = logger

    def set_framework_config(self, config):
        self.framework_config = config

    def tweak_bulk_options(self, options):
        pass

    def validate_config_fields(self):
        pass

    async def validate_config(self):
        pass

    def advanced_rules_validators(self):
        return []

    async def ping(self):
        raise NotImplementedError

    async def changed(self):
        return True

    async def get_docs(self, filtering=None):
        raise NotImplementedError
        yield

    async def get_docs_incrementally(self, sync_cursor, filtering=None):
        raise NotImplementedError
        yield

    async def get_access_control(self):
        raise NotImplementedError
        yield

    def sync_cursor(self):
        return self._sync_cursor

    async def close(self):
        pass
