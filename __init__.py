"""lictor: an inline mTLS proxy monitor for AI agents."""

__version__ = "0.1.0"
