"""The help of a command, in parts that unfold, and sentences for arguments that do not parse."""

import difflib
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import rich.console
import tyro

from jaxclr.cli.layout import columns, margin, paragraphs, print_lines
from jaxclr.errors import UserError, either, shown

COMMON = ("--data.source", "--data.dir")  # shown by --help although they belong to a part
UNNAMED = "run"  # the part of the options without a dot


class Option(NamedTuple):
    """An option, or a positional argument.

    Attributes:
      names: such as --seed, or --json and --no-json; none of a positional argument.
      metavar: its value, such as INT; "" if it takes none.
      help: its meaning and default.
      part: the part of the configuration that it sets, such as data; "" of a positional argument.
      required: whether it must be given.
    """

    names: tuple[str, ...]
    metavar: str
    help: str
    part: str
    required: bool

    @property
    def title(self) -> str:
        """Names and value."""
        return f"{', '.join(self.names)} {self.metavar}".strip()

    @property
    def first_sentence(self) -> str:
        """The first sentence of its meaning, and its default unless that is None."""
        at = max(self.help.rfind(mark) for mark in (" (default: ", " (required)"))
        text, default = (self.help[:at], self.help[at:]) if at >= 0 else (self.help, "")
        sentence = re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
        return sentence + default.replace(" (default: None)", "")


def options_of(kind: type, settings: Mapping[str, Any]) -> list[Option]:
    """The options of a command; arguments as for `tyro.cli`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(kind, **settings)  # pyright: ignore[reportDeprecated]
    found = []
    for action in parser._actions:
        if "--help" not in action.option_strings:
            text = " ".join((action.help or "").replace("%%", "%").split())
            name, dot, _ = "".join(action.option_strings[:1]).removeprefix("--").partition(".")
            found.append(
                Option(
                    tuple(action.option_strings),
                    _plain(str(action.metavar or "")),
                    text.removesuffix("(default: )").rstrip(),
                    name if dot else name and UNNAMED,
                    "(required)" in text,
                )
            )
    return found


def asked_help(arguments: Sequence[str]) -> str | None:
    """ "" for --help, the part for --help-PART, and None without either."""
    for word in arguments:
        if word in ("-h", "--help"):
            return ""
        if word.startswith("--help-"):
            return word.removeprefix("--help-")
    return None


def print_help(
    console: rich.console.Console,
    options: Sequence[Option],
    *,
    command: str,
    part: str,
    description: str,
    before: Mapping[str, str],
    first: Collection[str],
) -> None:
    """Prints the help of a command.

    Args:
      console: to print on.
      options: those of the command.
      command: its name and arguments.
      part: "" for the options that are used most, "all", or the name of a part.
      description: its first paragraph belongs to every help, the others to "all".
      before: options that are parsed before the others, and their meaning.
      first: names of the options that are used most; empty for those without a dot and `COMMON`.

    Raises:
      UserError: the part does not exist.
    """
    width = margin(console)
    usage = " ".join([command, *(option.metavar for option in options if not option.names)])
    parts = list(dict.fromkeys(option.part for option in options if option.names))
    earlier = [_earlier(title, meaning, parts) for title, meaning in before.items()]
    options = sorted([*earlier, *options], key=lambda option: bool(option.names))
    if part not in ("", "all", *parts):
        raise UserError(
            f"Options have no part {shown(part)}; give "
            f"{either(['--help', *(f'--help-{one}' for one in (*parts, 'all'))])}."
        )
    texts = description.split("\n\n")
    lines = [f"jaxclr {usage} [OPTIONS]", ""]
    lines += paragraphs(texts if part == "all" else texts[:1], width)
    if part == "":
        shows = lambda option: (
            not option.names
            or option.names[0] in (first or COMMON)
            or (not first and (option in earlier or option.part == UNNAMED))
        )
        most, rest = filter(shows, options), [o for o in options if not shows(o)]
        rows = [(option.title, option.first_sentence) for option in most]
        lines += ["", "Options that are used most:" if rest else "Options:"]
        lines += columns(rows, width)
        rows = [
            (f"--help-{one}", _some([o for o in rest if o.part == one], width))
            for one in parts
            if any(option.part == one for option in rest)
        ]
        rows.append(("--help-all", "all options, each with its whole description"))
        if rest:
            lines += ["", "Other options, by part; to see them:", *columns(rows, width)]
    else:
        for one in ("", *parts) if part == "all" else (part,):
            rows = [(option.title, option.help) for option in options if option.part == one]
            title = f"Options of the {one}:" if len(parts) > 1 else "Options:"
            title = title if one else "Arguments:"
            lines += ["", title, *columns(rows, width)] if rows else []
    print_lines(console, lines)


def _earlier(title: str, meaning: str, parts: Sequence[str]) -> Option:
    """An option or argument that is parsed before the others; --encoder is of the encoder."""
    name, _, metavar = title.partition(" ")
    if not name.startswith("--"):
        return Option((), title, meaning, "", False)
    return Option((name,), metavar, meaning, name[2:] if name[2:] in parts else UNNAMED, False)


def rejected(
    said: str,
    arguments: Sequence[str],
    options: Sequence[Option],
    *,
    command: str,
    partial: bool = False,
) -> str:
    """The sentence for arguments that tyro rejects.

    Args:
      said: what tyro prints.
      arguments: those of the command.
      options: those of the command.
      command: its name and arguments.
      partial: whether there may be other options.
    """
    name = f"jaxclr {command.split()[0]}"
    known = {flag: option for option in options for flag in option.names}
    for word in arguments:
        flag = _flag(word)
        if not partial and flag.startswith("--") and flag not in known:
            near = difflib.get_close_matches(flag, known, n=3, cutoff=0.8)
            hint = f" Did you mean {either(near)}?" if near else ""
            return f"{name} has no option {word.partition('=')[0]}.{hint} See `{name} --help-all`."
    # Without the frame and its rules, which are ASCII where the output is.
    rows = [line.strip("│| ") for line in said.splitlines()]
    title, *rows = [row for row in rows if set(row) - set("╭╮╰╯─+- ")] or [""]
    text = re.split(" ?(?:For full|Argument) helptext", " ".join(rows))[0]
    positional = "for argument '" in text and "for argument '--" not in text
    if positional or "Required" in title:
        given = set(map(_flag, arguments))
        missing = [
            option.title
            for option in options
            if option.required
            and not given & {*option.names}
            and (option.names or positional or option.title in text)
        ]
        *others, last = missing or ["another argument"]
        return f"{name} needs {', '.join(others)}{' and ' * bool(others)}{last}."
    flags = [flag for flag in re.findall(r"--[\w.-]*\w", text) if flag in known]
    if flags and any(_flag(word) == flags[0] for word in arguments):
        option, values = known[flags[0]], _values(arguments, flags[0])
        if not values:
            return f"{flags[0]} needs a value: {flags[0]} {option.metavar}."
        return f"{flags[0]} must be {_wanted(option.metavar)}, got {shown(' '.join(values))}."
    if stray := re.search(r"Unrecognized options: (.+?)(?= Perhaps| For full|$)", text):
        return f"{name} does not know what to do with {shown(stray[1])}. See `{name} --help`."
    return text


def _plain(metavar: str) -> str:
    """{None}|INT as INT, and [INT [INT ...]] as INT ...; meanings say what None is."""
    metavar = metavar.removeprefix("{None}|")
    return re.sub(r"\{?\[(.+) \[\1 \.\.\.\]\]\}?", r"\1 ...", metavar)


def _some(options: Sequence[Option], width: int) -> str:
    """As many names of a part as one line holds, and the number of the others."""
    names = [option.names[0][2:].removeprefix(f"{option.part}.") for option in options]
    for count in range(len(names), 0, -1):
        more = f" and {len(names) - count} more" if count < len(names) else ""
        text = ", ".join(names[:count]) + more
        if len(text) <= width - 25:
            break
    return text


def _flag(word: str) -> str:
    """The option in an argument, as tyro reads it: --batch_size=8 is --batch-size."""
    return word.partition("=")[0].replace("_", "-") if word.startswith("--") else word


def _values(arguments: Sequence[str], flag: str) -> list[str]:
    """The words given to an option, the last time that it is given."""
    at = max(i for i, word in enumerate(arguments) if _flag(word) == flag)
    _, equals, value = arguments[at].partition("=")
    if equals:
        return [value]
    rest = arguments[at + 1 :]
    end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    return list(rest[:end])


_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "INT ...": "whole numbers",
    "FLOAT ...": "numbers",
    "FLOAT FLOAT": "two numbers",
}


def _wanted(metavar: str) -> str:
    """A value in words."""
    if choices := re.fullmatch(r"\{([^{}]+)\}( \.\.\.)?", metavar):
        return either(choices[1].split(","))
    return _KINDS.get(metavar, metavar)
