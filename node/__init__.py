"""The built-in node: a small Elasticsearch-compatible server on SQLite, for development, demos and tests."""
