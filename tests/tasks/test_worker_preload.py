import subprocess
import sys

import pytest

from models.engines.devices import has_gpu_driver

CODE = """
import gc, sys
import tasks.worker_preload
from models.faces.kernels import integrate, pool_boxes, suppress
assert integrate.signatures and pool_boxes.signatures and suppress.signatures
assert gc.isenabled() and "openvino" in sys.modules
unwanted = {"torch", "prefect", "scipy.optimize", "scipy.linalg", "cffi", "openvino.tools.ovc"} & set(sys.modules)
sys.exit(f"imported {unwanted}" if unwanted else 0)
"""


@pytest.mark.skipif(
    has_gpu_driver(), reason="GPU workers load torch after the fork, because its driver does not survive one"
)
def test_kernels_are_compiled_and_nothing_else_is_imported():
    subprocess.run([sys.executable, "-c", CODE], check=True)
