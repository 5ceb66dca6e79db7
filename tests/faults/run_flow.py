"""``python -m tests.faults.run_flow FLOW JSON``: a flow with all its parameters, ended as the command line ends it."""

import json
import sys

from flows.commands.ends import run_flow

if __name__ == "__main__":
    sys.exit(run_flow(sys.argv[1], **json.loads(sys.argv[2])))
