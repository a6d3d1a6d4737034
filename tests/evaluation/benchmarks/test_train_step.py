"""FLOPs of a training step are counted from the weights."""

from headway.evaluation.benchmarks.train_step import CASES, MULTI_TOKEN, STOCK, StepCost, _measure_case

SETTINGS = {"threads": 1, "seed": 0, "hidden_size": 64, "layers": 1, "vocabulary": 100, "heads": 2, "rows": 2, "max_length": 8}


def test_heads_add_the_flops_of_their_weights_and_unembeddings() -> None:
    costs: dict[str, StepCost] = {case: _measure_case({**SETTINGS, "repeats": 1, "case": case}) for case in CASES}
    layer = 4 * 64 * 64 + 3 * 64 * 256 + 2 * 64  # attention, MLP, norms
    assert costs[STOCK].flops == 6 * 2 * 8 * (layer + 64 + 100 * 64)
    assert costs[MULTI_TOKEN].flops > costs[STOCK].flops + 6 * 2 * 8 * 2 * 100 * 64
    assert costs["headway next-token"].flops == costs[STOCK].flops
    assert all(cost.seconds > 0 for cost in costs.values())
