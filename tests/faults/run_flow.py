"""``python -m tests.faults.run_flow FLOW JSON``: run a flow with any parameters and exit like the command line."""

import json
import sys

from flows.commands.exit_codes import run_flow

if __name__ == "__main__":
    sys.exit(run_flow(sys.argv[1], **json.loads(sys.argv[2])))
