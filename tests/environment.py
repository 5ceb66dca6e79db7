"""Imported before all else: what the processes of tests, and all that they start, find around them."""

import atexit
import os
import shutil
import sys
import tempfile

# Compiled modules are kept whatever this shell says: each of some hundred processes would compile all of them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What commands leave that are killed goes with all the rest, when the tests end; tmp_path stays, to be looked at.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _scratch = tempfile.mkdtemp(prefix="affwild2-tests-")
    # PostgreSQL runs as another user.
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
    # Processes share the cores: one thread that waits for another would keep a third from working.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
