"""Weights of heads over a run."""

from headway.objectives import MultiToken


def test_schedules_start_and_end_where_they_say():
    def heads(schedule, progress):
        return MultiToken(schedule=schedule).weights(2, progress)[1:]

    assert heads("sine", 0.0) == [0, 0] and heads("sine", 1.0) == [1, 1]
    assert heads("fade-out", 0.0) == [1, 1] and heads("fade-out", 1.0) == [0, 0]
    assert heads("forward", 0.0) == [0, 0] and heads("forward", 0.5) == [1, 0] and heads("forward", 1.0) == [1, 1]
    assert heads("reverse", 0.0) == [1, 1] and heads("reverse", 0.5) == [1, 0] and heads("reverse", 1.0) == [0, 0]
