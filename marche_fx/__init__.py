"""Turn a masked transformer's decoding step into an incremental program that recomputes active tokens only."""

__version__ = "0.1.0"
