"""Entries of the losses in jaxclr/losses/contrib."""
