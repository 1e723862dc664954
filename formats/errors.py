"""The one family of errors that lictor raises on purpose."""

from __future__ import annotations


class LictorError(Exception):
    """Base of every error that lictor raises on purpose. Its text is one sentence that a person can act on."""


class FormatError(LictorError):
    """Bytes or text are not in the form that the specification demands."""


class UsageError(LictorError):
    """The command or the configuration is wrong; the text names the mend. The command line exits with 2."""


class VerificationError(LictorError):
    """Something that claims to be authentic is not, or does not say what it must."""


class LedgerError(LictorError):
    """The ledger cannot be written or does not agree with its own checkpoint. Nothing may be forwarded after it."""
