"""The fastest scheme is chosen by timings, and the reason names the bound."""

import pytest
import torch

from headway.trunk.roofline import choose
from tests.tiny import tiny_trunk

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'headway[quantize]'")

FLOAT32 = ["int8", "int8-dynamic"]  # schemes that run on a CPU in float32; int4 needs bfloat16


def test_the_choice_follows_the_timings_and_names_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = tiny_trunk()
    monkeypatch.setattr("headway.trunk.roofline.MIN_SECONDS", 0.001)
    for times, scheme in (
        ({"none": 1.0, "int8": 0.95, "int8-dynamic": 1.2}, "none"),  # within the margin
        ({"none": 1.0, "int8": 0.8, "int8-dynamic": 0.5}, "int8-dynamic"),
    ):
        monkeypatch.setattr("headway.trunk.roofline._time_schemes", lambda *_, found=times: found)
        choice = choose(trunk, tokens=3)
        assert choice.scheme == scheme and choice.why.startswith(f"{scheme}: a forward over 3 tokens reads")
        assert "bounds it" in choice.why and "int8-dynamic" in choice.why and "int4: the int4 kernel takes bfloat16" in choice.why
        assert choice.roofline.bandwidth > 0 and choice.roofline.compute > 0


def test_every_scheme_that_runs_here_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.trunk.roofline.MIN_SECONDS", 0.001)
    for trunk, schemes in ((tiny_trunk(), FLOAT32), (tiny_trunk(hidden_size=64).to(torch.bfloat16), [*FLOAT32, "int4"])):
        times = choose(trunk, tokens=2).times
        assert set(times) == {"none", *schemes} and all(value > 0 for value in times.values())
