"""Entries of the battery, a file per family of losses; each file holds ENTRIES."""
