"""``python -m tests.faults.run_flow FLOW JSON``: a flow with all its parameters, ended as the command line ends it."""

import json
import sys

import typer

from flows.commands.ends import run_flow

if __name__ == "__main__":
    try:
        run_flow(sys.argv[1], **json.loads(sys.argv[2]))
    except typer.Exit as end:
        sys.exit(end.exit_code)
