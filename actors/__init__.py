"""The service: supervisor tree, scheduler, connector actors, sync jobs, bulk sink."""
