import subprocess
import sys

PROGRAM = """
import resource
import torch
from models.engines.allocator import keep_freed_memory
{call}
for _ in range(20):
    torch.ones(8 << 20).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(8 << 20).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(call=call)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_buffers_are_used_again():
    assert faults("keep_freed_memory()") < faults("") / 10
