"""The connector interface: `_connector`, `_connector/_sync_job`, `_connector/_secret`."""
