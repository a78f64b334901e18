"""Text of users (names of files and classes, messages) in a form that any output can show."""

import os
import re
from typing import Any

# Control characters, line and paragraph separators, marks that reverse the direction of what
# follows, and surrogates (how Python represents bytes of file names that are not UTF-8).
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_BYTES = range(0xDC80, 0xDD00)  # byte b of a file name is the surrogate 0xDC00 + b


def displayable(text: str | os.PathLike[str]) -> str:
    r"""Text on one line with escapes for what cannot be shown: `\n`, `\x1b`, and `\xe9` for a byte.

    All other characters stay as they are. HTML, markup and formulas need their own escapes. Of a
    path, the result is for people.

    >>> displayable(os.fsdecode(b"caf\xe9"))
    'caf\\xe9'
    """
    text = os.fspath(text)
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def displayable_lines(text: str) -> str:
    """The same, except that line breaks stay."""
    return "\n".join(map(displayable, text.split("\n")))


def print_text(console: Any, text: str) -> None:
    """Prints plain text to a rich.console.Console, without wrapping: paths can be copied.

    Names in it may hold control characters, bytes that are not UTF-8, markup and :emoji: codes.
    """
    shown = displayable_lines(text)
    console.print(shown, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if code in _BYTES else repr(found[0])[1:-1]
