"""The evidence: what methods reach, measured by runs that anyone can repeat.

    python experiments/evidence.py run --budget 8                 searches, then rows, in order
    python experiments/evidence.py run digits --dry               what would run, and how long
    python experiments/evidence.py run cifar10-search cifar10 --tfds ~/tensorflow_datasets
    python experiments/evidence.py tables                         docs/evidence.md and its figures
    python experiments/evidence.py check                          make evidence-check
    python experiments/evidence.py repeat --random                one row again, bit for bit

The studies are the functions of evidence/studies.py: lists of rows of plain data. Each finished row
is a line of docs/evidence/STUDY.jsonl, and is not run again. Interrupted rows continue from their
checkpoints. A row runs on one core, so that its figures do not depend on the number of cores; there
are as many rows at a time as cores.
"""

from evidence.main import main

if __name__ == "__main__":
    main()
