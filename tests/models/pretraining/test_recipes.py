import pytest

from models.pretraining.recipes import Phase, get_pretraining


def test_paper_recipes_equal_the_published_notebooks():
    identity, emotion = get_pretraining("paper", "identity"), get_pretraining("paper", "emotion")
    assert [(p.layers, p.epochs, p.learning_rate) for p in identity.phases] == [("head", 1, 1e-3), ("all", 7, 1e-4)]
    assert (identity.batch_size, identity.rho, identity.balance) == (48, 0.05, 0.0)
    assert [(p.layers, p.epochs, p.learning_rate) for p in emotion.phases] == [("head", 3, 1e-3), ("all", 5, 1e-4)]
    assert (emotion.batch_size, emotion.label_smoothing, emotion.balance, emotion.keep) == (64, 0.1, 1.0, "best")
    for recipe in (identity, emotion):
        added = (recipe.average, recipe.prior_power, recipe.mixing, recipe.dropout, recipe.weight_decay, recipe.jitter)
        assert set(added) == {0.0} and recipe.frozen_stages == 0 and recipe.flip and not recipe.grey
        assert recipe.rotation_degrees == recipe.blur == recipe.person_power == 0.0
    assert (identity.smallest_crop, identity.stretch, emotion.smallest_crop) == (0.08, 4 / 3, 1.0)


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"phases": ()}, {"smallest_crop": 0.0}, {"rho": -1.0}])
def test_invalid_recipes_are_refused(change):
    with pytest.raises(ValueError, match="expected"):
        get_pretraining("default", "emotion").replace(**change)


def test_epochs_of_all_phases_are_added():
    assert (
        get_pretraining("paper", "emotion").replace(phases=(Phase("all", 2, 1e-3), Phase("all", 3, 1e-4))).epochs == 5
    )
