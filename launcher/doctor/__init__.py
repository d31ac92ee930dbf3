"""Whether a cluster is ready for jobs: all that `slipway doctor` looks at, and what `submit` asks first."""

from launcher.doctor.check import Check, Level, require
from launcher.doctor.examine import examine, preflight

__all__ = ["Check", "Level", "examine", "preflight", "require"]
