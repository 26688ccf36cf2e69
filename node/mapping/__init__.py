"""What an index knows about its fields: types, dynamic mapping, and what of a document is indexed. Pure."""
