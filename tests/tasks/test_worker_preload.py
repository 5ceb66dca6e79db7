import subprocess
import sys

import pytest

from models.engines.devices import has_gpu_driver

CODE = """
import sys
import tasks.worker_preload
from models.faces.kernels import integrate, pool_boxes, suppress
assert integrate.signatures and pool_boxes.signatures and suppress.signatures
unwanted = {"torch", "openvino", "prefect", "scipy.optimize", "scipy.linalg"} & set(sys.modules)
sys.exit(f"imported {unwanted}" if unwanted else 0)
"""


@pytest.mark.skipif(
    has_gpu_driver(), reason="GPU workers load torch after the fork, because its driver does not survive one"
)
def test_kernels_are_compiled_and_no_engine_is_imported():
    subprocess.run([sys.executable, "-c", CODE], check=True)
