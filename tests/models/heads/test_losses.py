import numpy as np
import pytest
import torch

from models.heads.losses import BranchLosses, class_weights, expression_loss, unit_loss, unit_weights, value_loss
from models.recipes.registry import find_recipe


def test_class_weights_are_max_over_count():
    labels = np.array([0] * 6 + [1] * 3 + [2] + [-1] * 5)
    assert class_weights(labels)[:3].tolist() == [1, 2, 6]
    assert class_weights(labels)[3:].tolist() == [1] * 5
    assert class_weights(labels, balanced=False).tolist() == [1] * 8


def test_branch_weights_multiply_the_losses_of_their_branches():
    (part,) = find_recipe("paper").variant("mtl").parts
    labels = {"va": np.zeros((2, 2), "f4"), "expr": np.zeros(2, "i1"), "au": np.ones((2, 12), "i1")}
    outputs = {"va": torch.randn(2, 2), "expr": torch.randn(2, 8), "au": torch.randn(2, 12)}

    def loss(*weights):
        return BranchLosses(part.replace(branch_weights=weights), labels)(outputs, labels).item()

    alone = [loss(*(1.0 if at == branch else 1e-9 for at in range(3))) for branch in range(3)]
    assert loss() == pytest.approx(sum(alone)) and loss(2.0, 1.0, 3.0) == pytest.approx(alone @ np.array([2, 1, 3]))


def test_unit_weights_by_hand():
    labels = np.array([[1], [0], [0], [0], [-1]])
    assert unit_weights(labels)[:, 0].tolist() == pytest.approx([4 / 6, 4 / 2])
    assert unit_weights(np.zeros((3, 1)))[:, 0].tolist() == [0.5, 1]


def test_an_expression_masked_as_published_costs_a_constant():
    """Keras divides the clipped zeros by their sum, so each class gets 1 / 8 (found by running it)."""
    logits = torch.tensor([[1.0] + [0.0] * 7], requires_grad=True)
    weight = torch.tensor([2.0] + [5.0] * 7)
    loss = expression_loss(logits, torch.tensor([-1]), class_weight=weight, published_masking=True)
    loss.backward()
    assert loss.item() == pytest.approx(2 * np.log(8)) and (logits.grad == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_saturated_outputs_keep_their_gradient_unless_masked_as_published(masked):
    expressions, units = torch.zeros(1, 8, requires_grad=True), torch.full((1, 12), -30.0, requires_grad=True)
    wrong = expressions + 30 * torch.eye(8)[:1]
    loss = expression_loss(wrong, torch.tensor([3]), class_weight=torch.ones(8), published_masking=masked)
    loss = loss + unit_loss(units, torch.ones(1, 12), unit_weight=torch.ones(2, 12), published_masking=masked)
    loss.backward()
    assert units.grad.abs().max().item() == (0 if masked else pytest.approx(1 / 12))
    assert abs(expressions.grad[0, 3].item()) == (0 if masked else pytest.approx(1))


def test_a_batch_without_labels_costs_nothing():
    logits = torch.ones(3, 12, requires_grad=True)
    nothing = torch.full((3, 12), -1.0)
    loss = unit_loss(logits, nothing, unit_weight=torch.ones(2, 12))
    loss = loss + expression_loss(logits[:, :8], torch.full((3,), -1), class_weight=torch.ones(8))
    loss = loss + value_loss(logits[:, :2], torch.full((3, 2), torch.nan))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()
