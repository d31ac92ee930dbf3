"""Stands in for the command that runs before a container is stopped: asks its program to end, and waits."""

import time
from pathlib import Path

Path("/work/stop").touch()
time.sleep(1)
