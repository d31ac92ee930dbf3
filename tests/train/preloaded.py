"""Imported by the server that test ranks are forked from (tests/train/conftest.py)."""

from train.preload import preload

preload()
