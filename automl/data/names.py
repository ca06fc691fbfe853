"""Names of files and labels, which need not be text."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Return whether a text can be written; bytes of names that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    r"""Return a name of a file as it can be written, `\xNN` for bytes that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
