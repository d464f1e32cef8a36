"""The command line: ``marche-fx``. A file lists a command's options and hands them to what it commands.

program    the program: its commands, and how it ends       options   those that commands share
demo  report  train  tune  evaluate  study  bench  sample   the commands, by name
"""

from .program import HEADING, app, run

__all__ = ["HEADING", "app", "run"]
