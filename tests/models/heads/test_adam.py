import subprocess
import sys

import torch

from models.heads.adam import Adam


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours = [
        torch.randn(5, 7, requires_grad=True),
        torch.randn(3, requires_grad=True),
        torch.ones(2, requires_grad=True),
    ]
    plain = [p.detach().clone().requires_grad_() for p in ours]
    first = Adam(ours, learning_rate=0.02, epsilon=1e-7)
    second = torch.optim.Adam(plain, lr=0.02, eps=1e-7)
    for step in range(30):
        for parameters, optimizer in ((ours, first), (plain, second)):
            optimizer.zero_grad()
            (parameters[0].square().sum() * (1 + step % 3) + parameters[1].sin().sum()).backward()
            optimizer.step()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert (ours[2] == 1).all()


def test_loads_no_compiler():
    code = (
        "import sys, torch\nfrom models.heads.adam import Adam\nw = torch.ones(2, requires_grad=True)\n"
        "a = Adam([w], learning_rate=0.1, epsilon=1e-7)\nw.sum().backward()\na.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
