"""`slipway` with a stage host that only sleeps and writes (see fake_host.py); all else is the real thing."""

import sys
from pathlib import Path

from launcher.backends import local, processes
from launcher.cli import main

FAKE = (sys.executable, str(Path(__file__).with_name("fake_host.py")))
local.HOST_COMMAND = processes.STAGE_COMMAND = FAKE
main()
