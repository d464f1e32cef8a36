from ...stopping import run_command
from .command import main

run_command(main)
