"""Marks the checkout as one package, so that tools which read files resolve imports such as `..runtime`. Never installed."""
