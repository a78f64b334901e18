"""Text of users on its way to terminals, pages and files."""

import io
import os

import pytest
import rich.console
import rich.table

from jaxclr.evaluation.by_protocol import protocol_table
from jaxclr.evaluation.closing import closing_table
from jaxclr.text import displayable, displayable_lines, print_table, print_text

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


@pytest.mark.parametrize("terminal", (True, False))
def test_terminals_get_whole_words_but_no_markup_and_no_control_characters(terminal):
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=terminal, width=20)
    print_text(console, "[red]x[/] :cat: lr=[0.1]\n\x1b[31m " + "y" * 40)
    broken = "\n" if terminal else " "
    assert file.getvalue() == (
        f"[red]x[/] :cat:{broken}lr=[0.1]\n\\x1b[31m{broken}" + "y" * 40 + "\n"
    )


def test_tables_in_pipes_are_as_wide_as_their_contents():
    file = io.StringIO()
    console = rich.console.Console(file=file, width=20)
    table = rich.table.Table("name", rich.table.Column("chosen", no_wrap=True))
    table.add_row("alpha", "x" * 40)
    print_table(console, table)
    assert "x" * 40 in file.getvalue() and console.width == 20


@pytest.mark.parametrize("terminal", (True, False))
def test_tables_of_accuracies_fit_80_columns(terminal):
    few = {"mean": 1.0, "std": 0.1 / 12}
    figures = dict.fromkeys(("1 label", "5 labels", "10 labels"), few)
    figures |= {key: {"mean": 1.0} for key in ("all", "kNN 200", "kNN 20")}
    features = dict.fromkeys(("raw pixels", "untrained", "trained"), figures)
    chosen = {f"setting_{index}": 10.0**index for index in range(9)}
    records = (
        {"test_images": 10_000, "features": features},
        {
            **{"protocol": "FewShot", "data": {"source": "digits"}, "percent": True},
            **{"train_images": 1437, "test_images": 360, "chosen": [{"10 labels": chosen}]},
            "figures": {"10 labels": {**few, "values": [1.0] * 30}},
        },
    )
    for table, record in zip((closing_table, protocol_table), records, strict=True):
        file = io.StringIO()
        console = rich.console.Console(
            file=file, force_terminal=terminal, width=80, color_system=None
        )
        print_table(console, table(record))
        words = file.getvalue().split()
        assert "…" not in file.getvalue() and words.count("100.0") >= 1
        if terminal or table is closing_table:
            assert max(map(len, file.getvalue().splitlines())) <= 80
    assert {*chosen} <= {*words}
