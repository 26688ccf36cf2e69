"""The typed client of Elasticsearch's indices and APIs; the one part of the protocol that does input and output."""
