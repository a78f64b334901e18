"""Data in memory need no library that only streams and TensorFlow Datasets use."""

import subprocess
import sys

CODE = """
import sys
sys.modules.update(dict.fromkeys(("tensorflow_datasets", "grain", "array_record")))
import jaxclr.training
from jaxclr.data import Data, load
print(load(Data("digits")).train.size)
"""


def test_digits_load_without_tfds_and_grain():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "1437\n", done.stderr
