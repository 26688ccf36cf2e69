"""HTTP as Elasticsearch speaks it: media types, parameters, error bodies, `filter_path`, and a router over handlers."""
