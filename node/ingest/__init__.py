"""Ingest pipelines: processors, conditions, and the managed pipeline of content connectors."""
