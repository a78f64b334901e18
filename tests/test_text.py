"""Text of users on its way to terminals, pages and files."""

import io
import os

import pytest
import rich.console

from jaxclr.text import displayable, displayable_lines, print_text

SHOWN = {
    os.fsdecode(b"caf\xe9"): r"caf\xe9",
    "a\nb\t": r"a\nb\t",
    "\x1b[31mred\x00": r"\x1b[31mred\x00",
    "\ud800": r"\ud800",
    "\u202etxt.exe\u2028": r"\u202etxt.exe\u2028",
    "$5^_{\\ <b>&'\" кот 猫 👩‍🚀": "$5^_{\\ <b>&'\" кот 猫 👩‍🚀",
}


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_what_cannot_be_shown_is_escaped(text):
    assert displayable(text) == SHOWN[text]
    displayable(text).encode()


def test_line_breaks_may_stay():
    assert displayable_lines("a\nb\x07\n") == "a\nb\\x07\n"


def test_terminals_get_no_markup_and_no_control_characters():
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=True, width=20)
    print_text(console, "[red]x[/] :cat: lr=[0.1]\n\x1b[31m " + "y" * 40)
    assert file.getvalue() == "[red]x[/] :cat: lr=[0.1]\n\\x1b[31m " + "y" * 40 + "\n"
