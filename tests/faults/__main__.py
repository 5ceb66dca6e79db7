"""Inject every known fault on local clusters and on clusters with a separate scheduler: ``python -m tests.faults``.

Words after the command select cases by name. Each case prints a line; the exit code is 1 if a case fails. All cases
take about half an hour on two cores. Cases that cut a network need root, or ``unshare --user --map-root-user`` before
the command.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import cluster_matrix, interruption_matrix

if __name__ == "__main__":
    words = sys.argv[1:]
    # Leave the with blocks, which end the started processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="affwild2-faults-") as scratch:
        failed = cluster_matrix.run_cases(Path(scratch, "clusters"), words)
        failed += interruption_matrix.run_cases(Path(scratch, "local"), words)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)
