import subprocess
import sys

import pytest

from models.engines.devices import has_gpu_driver

CODE = """
import sys
import tasks.worker_preload
from models.faces.kernels import integrate, pool_boxes, suppress
assert integrate.signatures and pool_boxes.signatures and suppress.signatures
unwanted = {"torch", "openvino", "prefect", "scipy.optimize"} & set(sys.modules)
sys.exit(f"imported {unwanted}" if unwanted else 0)
"""


@pytest.mark.skipif(
    has_gpu_driver(), reason="workers of a GPU run torch, which nothing loads ahead: its driver does not outlive a fork"
)
def test_loops_are_compiled_and_no_engine_is_there():
    subprocess.run([sys.executable, "-c", CODE], check=True)
