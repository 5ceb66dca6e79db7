"""``python -m tests.faults [WORD ...]``: every known fault, on local clusters and on clusters started by hand.

Prints one line per cell; WORD selects cells by name. Exits with code 1 if a cell fails. All cells take about half an
hour on two cores. Cells that cut a network need root, or ``unshare --user --map-root-user`` before the command.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import cluster_matrix, interruption_matrix

if __name__ == "__main__":
    words = sys.argv[1:]
    # SystemExit runs the clean-up of all started processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="affwild2-faults-") as scratch:
        failed = cluster_matrix.print_matrix(Path(scratch, "clusters"), words)
        failed += interruption_matrix.print_matrix(Path(scratch, "local"), words)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)
