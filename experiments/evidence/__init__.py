"""The evidence: rows of runs, how they are run, and the pages made of their results."""
