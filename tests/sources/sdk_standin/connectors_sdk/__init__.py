"""A stand-in with the interface of the public package, for sources written for it."""
