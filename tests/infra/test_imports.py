import subprocess
import sys

CODE = """
import sys
import infra.worker_imports
import pyarrow as pa
import torch._dynamo.trace_rules  # looks whether pandas is there
from importlib.util import find_spec
assert pa.array([1.0, None]).fill_null(0.0).to_pylist() == [1.0, 0.0]
assert pa.table({"a": [True, False]})["a"].to_numpy().tolist() == [True, False]
assert "pandas" not in sys.modules
try:
    import pandas
except ModuleNotFoundError as error:
    assert error.name == "pandas"
else:
    sys.exit("pandas was imported")
"""


def test_pyarrow_and_torch_do_without_pandas():
    subprocess.run([sys.executable, "-c", CODE], check=True)


PLANNING = """
import sys
import flows.deployments, flows.extract, flows.fit, flows.pretrain, flows.rescore, flows.score, flows.submit
slow = {"torch", "timm", "facenet_pytorch", "torchvision", "openvino"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
"""


def test_what_plans_work_needs_none_of_what_does_it():
    subprocess.run([sys.executable, "-c", PLANNING], check=True)
