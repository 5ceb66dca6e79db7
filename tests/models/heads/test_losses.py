import numpy as np
import pytest
import torch

from models.heads.losses import ccc_loss, class_weights, expression_loss, unit_loss, unit_weights
from models.heads.metrics import ccc

RANDOM = np.random.default_rng(0)


def test_class_weights_are_max_over_count():
    labels = np.array([0] * 6 + [1] * 3 + [2] + [-1] * 5)
    assert class_weights(labels)[:3].tolist() == [1, 2, 6]
    assert class_weights(labels)[3:].tolist() == [1] * 5
    assert class_weights(labels, balanced=False).tolist() == [1] * 8


def test_unit_weights_by_hand():
    labels = np.array([[1], [0], [0], [0], [-1]])
    assert unit_weights(labels)[:, 0].tolist() == pytest.approx([4 / 6, 4 / 2])
    assert unit_weights(np.zeros((3, 1)))[:, 0].tolist() == [0.5, 1]


def test_expression_loss_equals_loops():
    p = torch.softmax(torch.tensor(RANDOM.normal(size=(10, 8))), dim=1)
    target, weight = torch.tensor(RANDOM.integers(0, 8, 10)), torch.tensor(RANDOM.random(8))
    expected = np.mean([weight[t] * -np.log(p[i, t].item()) for i, t in enumerate(target)])
    assert expression_loss(p, target, class_weight=weight).item() == pytest.approx(float(expected))


def test_published_masking_of_expressions_is_a_constant():
    p = torch.tensor([[1.0] + [0.0] * 7], requires_grad=True)
    loss = expression_loss(p, torch.tensor([-1]), class_weight=torch.full((8,), 2.0))
    loss.backward()
    assert loss.item() == pytest.approx(-2 * np.log(1e-7), rel=1e-4) and (p.grad == 0).all()


@pytest.mark.parametrize("published", [False, True])
def test_unit_loss_equals_loops(published):
    p, y = RANDOM.uniform(0.01, 0.99, (6, 12)), RANDOM.integers(-1, 2, (6, 12))
    weight = RANDOM.random((2, 12))
    terms = []
    for i in range(6):
        for u in range(12):
            if y[i, u] >= 0:
                terms.append(-weight[y[i, u], u] * np.log(p[i, u] if y[i, u] else 1 - p[i, u]))
            elif published:
                terms.append(0.0)
    got = unit_loss(
        torch.tensor(p), torch.tensor(y).double(), unit_weight=torch.tensor(weight), published_masking=published
    )
    assert got.item() == pytest.approx(np.mean(terms), abs=1e-6)


def test_ccc_loss_is_one_minus_the_metric():
    x, y = RANDOM.normal(size=(50, 2)), RANDOM.normal(size=(50, 2))
    expected = 1 - (ccc(y[:, 0], x[:, 0]) + ccc(y[:, 1], x[:, 1])) / 2
    assert ccc_loss(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(expected, abs=1e-6)
    y[3] = np.nan
    masked_x, masked_y = x.copy(), y.copy()
    masked_x[3] = masked_y[3] = 0
    expected = ccc_loss(torch.tensor(masked_x), torch.tensor(masked_y)).item()
    assert ccc_loss(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(expected)


def test_gradients_are_correct():
    y = torch.tensor(RANDOM.uniform(-1, 1, (6, 2)))
    x = torch.tensor(RANDOM.uniform(-1, 1, (6, 2)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: ccc_loss(v, y), x)
