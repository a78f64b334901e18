"""Text of users (names of files and classes, messages) in a form that any output can show."""

import os
import re
import textwrap
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


def print_text(console: Any, text: str, *, wrap: bool = True) -> None:
    """Prints plain text to a rich.console.Console.

    Names in it may hold control characters, bytes that are not UTF-8, markup and :emoji: codes.
    Terminals get lines that end between words, and words longer than a line whole, so that paths
    can be copied; files and pipes get the lines of the text.

    Args:
      console: a rich.console.Console.
      text: the text.
      wrap: False for text that programs read.
    """
    shown = displayable_lines(text)
    if wrap and console.is_terminal:
        lines = shown.split("\n")
        shown = "\n".join("\n".join(wrapped(line, console.width)) for line in lines)
    console.print(shown, highlight=False, markup=False, emoji=False, soft_wrap=True)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text of one line, broken between words only; [""] for the empty text."""
    fit = textwrap.TextWrapper(
        width,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return fit.wrap(text) or [""]


def print_table(console: Any, table: Any) -> None:
    """Prints a rich.table.Table; in files and pipes it is as wide as its contents."""
    before = console.width
    if not console.is_terminal:
        wide = console.options.update(max_width=10_000)
        console.width = max(before, console.measure(table, options=wide).maximum)
    console.print(table)
    if console.width != before:
        console.width = before


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if code in _BYTES else repr(found[0])[1:-1]
