"""Metrics are shown with their unit, and shares differ in points."""

import pytest

from headway.experiments.metrics import Metric

SOLVED, LOSS = Metric("score", "solved", format="{:.1%}"), Metric("loss", "held-out loss", unit="nats")


@pytest.mark.parametrize(
    ("metric", "value", "shown", "difference", "axis"),
    [
        (SOLVED, 0.125, "12.5%", "+12.5", "solved (%)"),
        (LOSS, 0.5, "0.5000", "+0.5000", "held-out loss (nats)"),
        (Metric("speed_up", "speed-up", format="{:.2f}x"), 1.25, "1.25x", "+1.25x", "speed-up"),
        (Metric("n", "number", format=lambda value: f"{value:g} of 9"), 3, "3 of 9", "+3.0000", "number"),
    ],
)
def test_values_differences_and_axes(metric: Metric, value: float, shown: str, difference: str, axis: str) -> None:
    assert (metric.show(value), metric.show_difference(value), metric.axis) == (shown, difference, axis)


def test_means_are_over_runs_and_of_lists_by_position() -> None:
    assert SOLVED.show_mean([0.25, 0.75]) == "50.0%"
    assert LOSS.show_mean([[1.0, 2.0], [2.0, 4.0]]) == "1.5000 3.0000"
