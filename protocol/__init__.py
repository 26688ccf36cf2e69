"""The Connector Protocol as pure data and pure functions. Only `protocol.store` does input and output."""
