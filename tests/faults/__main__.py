"""``python -m tests.faults [WORD ...]``: every fault that is known, on local clusters and on ones started by hand.

Prints a line per cell, or per cell in whose name one of the words is; code 1 if one is wrong. All of it takes about
half an hour on two cores. Cells that cut a network need root, or ``unshare --user --map-root-user`` around the command.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import cluster_matrix, interruption_matrix

if __name__ == "__main__":
    words = sys.argv[1:]
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="affwild2-faults-") as scratch:
        wrong = cluster_matrix.print_matrix(Path(scratch, "clusters"), words)
        wrong += interruption_matrix.print_matrix(Path(scratch, "local"), words)
    print(f"{wrong} wrong")
    sys.exit(1 if wrong else 0)
