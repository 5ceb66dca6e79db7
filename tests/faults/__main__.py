"""Inject every known fault: ``python -m tests.faults [unattended] [WORDS]``.

Without ``unattended``: into commands, on local clusters and on clusters with a separate scheduler, which takes about
half an hour on two cores. With it: into runs of deployments on a Prefect server, which takes two
and a half minutes for each fault on two cores that also run other work.

Words select cases by name. Each case prints a line; the exit code is 1 if a case is not as expected. Cases that cut a
network or fill a disk need root, or ``unshare --user --map-root-user --mount`` before the command.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import cluster_matrix, interruption_matrix, unattended_matrix

if __name__ == "__main__":
    words = sys.argv[1:]
    # Leave the with blocks, which end the started processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="affwild2-faults-") as scratch:
        if words[:1] == ["unattended"]:
            failed = unattended_matrix.run_cases(Path(scratch, "unattended"), words[1:])
        else:
            failed = cluster_matrix.run_cases(Path(scratch, "clusters"), words)
            failed += interruption_matrix.run_cases(Path(scratch, "local"), words)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)
