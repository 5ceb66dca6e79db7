"""Environment of the test processes and of all processes that they start. Import this module first."""

import atexit
import os
import shutil
import sys
import tempfile

# Keep compiled modules whatever the shell sets: otherwise each of about 100 processes would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Files that killed commands leave are removed when the tests end; tmp_path is kept for inspection.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _scratch = tempfile.mkdtemp(prefix="affwild2-tests-")
    # PostgreSQL runs as another user, who must reach its folder.
    os.chmod(_scratch, 0o711)
    atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = _scratch
os.environ |= {
    "PREFECT_HOME": tempfile.mkdtemp(prefix="prefect-"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_METRICS_ENABLED": "true",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    # The processes share the cores: a thread that spins while it waits would block another one.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
