"""`python -m jaxclr` is the command `jaxclr`."""


def main() -> None:
    """The command line."""
    # Processes that decode images import this file again, and need nothing of what it runs.
    from jaxclr import cli

    cli.main()


if __name__ == "__main__":
    main()
