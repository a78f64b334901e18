"""The command `jaxclr`, also run by `python -m jaxclr`."""

import sys

from jaxclr.errors import UserError, optional
from jaxclr.processes.startup import check_address_space, exit_on_interrupt


def main() -> None:
    """Runs the command line."""
    exit_on_interrupt()
    # Worker processes that decode images import this file again; imports inside keep it small.
    from jaxclr.processes import launch

    arguments = sys.argv[1:]
    if arguments[:1] == ["launch"]:
        sys.exit(launch.main(arguments[1:]))
    if not launch.is_watched() and any(word.startswith("--distributed.") for word in arguments):
        sys.exit(launch.watch(arguments))
    try:
        check_address_space()
        cli = optional("jaxclr.cli")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
