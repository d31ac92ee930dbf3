"""`slipway` with a stage host that only sleeps and writes (see fake_host.py); all else is the real thing."""

import sys
from pathlib import Path

from launcher.backends import local
from launcher.cli import main

local.HOST_COMMAND = (sys.executable, str(Path(__file__).with_name("fake_host.py")))
main()
