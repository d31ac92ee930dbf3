"""Imported by the server that test ranks are forked from (tests/train/conftest.py)."""

import os

# Before numpy and pyarrow are imported: no threads of theirs, which forks would lack.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

from train.preload import preload

preload()
