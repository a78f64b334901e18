"""Plain text in lines: two columns, paragraphs, and bold names of options in terminals."""

from collections.abc import Iterable, Sequence

import rich.console
import rich.text

from jaxclr.text import displayable, wrapped

WIDEST = 100  # longer lines are hard to read


def margin(console: rich.console.Console) -> int:
    """The length of a line of text."""
    return max(40, min(console.width, WIDEST))


def columns(rows: Sequence[tuple[str, str]], width: int, *, most: int = 26) -> list[str]:
    """Names and their texts side by side; a text begins below a name that is longer than `most`."""
    left = max((len(name) for name, _ in rows if len(name) <= most), default=0)
    indent = " " * (left + 4)
    lines = []
    for name, text in rows:
        first, *rest = wrapped(" ".join(text.split()), width - len(indent))
        if len(name) <= left:
            lines.append(f"  {name:{left}}  {first}".rstrip())
        else:
            lines += [f"  {line}" for line in wrapped(name, width - 2)]
            lines.append(f"{indent}{first}")
        lines += [f"{indent}{line}" for line in rest]
    return lines


def paragraphs(texts: Iterable[str], width: int, *, indent: str = "") -> list[str]:
    """Paragraphs with a blank line between them; items of a list stay lines of their own."""
    lines: list[str] = []
    for text in texts:
        lines += [""] if lines else []
        items = text.split("\n") if "\n- " in text else [" ".join(text.split())]
        lines += [indent + line for one in items for line in wrapped(one, width - len(indent))]
    return lines


def print_lines(console: rich.console.Console, lines: Iterable[str]) -> None:
    """Prints lines as they are; terminals show headings and names of options in bold."""
    for line in lines:
        text = rich.text.Text(displayable(line))
        text.highlight_regex(r"(?<![\w-])--?[a-z][\w.-]*\w", "bold")
        text.highlight_regex(r"^[^\s].*:$", "bold")
        console.print(text, soft_wrap=True)
