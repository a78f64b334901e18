"""`python -m jaxclr` is the command `jaxclr`."""

from jaxclr.cli import main

main()
