"""Run a flow with any of its parameters, with the exit codes of the command: ``run_flow FLOW JSON``."""

import json
import sys

from flows.commands.exit_codes import run_flow

if __name__ == "__main__":
    sys.exit(run_flow(sys.argv[1], **json.loads(sys.argv[2])))
