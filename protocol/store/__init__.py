"""The typed client of the indices and APIs that Callboard and Elasticsearch share."""
