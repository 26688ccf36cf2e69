"""One module per family of the interface: each has its routes and the functions that answer them."""
