"""Models from scratch have the parameters of their name, and heads with weights of their own."""

import pytest

from headway.experiments.reproduce.configs import SHAPES
from headway.experiments.reproduce.models import fresh_model, parameters_beside_embeddings


@pytest.mark.slow
@pytest.mark.parametrize("size", ["0.05M", "0.25M", "1M", "3M", "10M", "30M"])
def test_a_size_has_about_the_parameters_of_its_name_for_any_number_of_heads(size: str) -> None:
    counted = {parameters_beside_embeddings(fresh_model(SHAPES[size], n, 20, 64, 0)) for n in (1, 2, 4)}
    assert len(counted) == 1
    assert 0.7 < counted.pop() / (float(size[:-1]) * 1e6) < 1.4


def test_fresh_heads_differ_from_the_last_layer_and_from_each_other() -> None:
    model = fresh_model(SHAPES["0.05M"], 3, 20, 64, 0)
    weights = [layer.mlp.up_proj.weight for layer in (model.view.layers[-1], *model.heads.layers)]
    assert len(weights) == 3
    assert all((a - b).abs().mean() > 0.05 for i, a in enumerate(weights) for b in weights[:i])
