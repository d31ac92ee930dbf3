"""`slipway data check FILE`: what is in a data file, what is wrong with it, and how long its records are.

`check` reads; `render` is the text for people.
"""

from launcher.data_check.check import check, prompts_of
from launcher.data_check.report import Bucket, Report, Tokens
from launcher.data_check.sources import column_names, data_files, known_format
from launcher.data_check.text import render

__all__ = [
    "Bucket",
    "Report",
    "Tokens",
    "check",
    "column_names",
    "data_files",
    "known_format",
    "prompts_of",
    "render",
]
