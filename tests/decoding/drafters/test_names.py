"""The table of drafters: every row builds a drafter, and its names are known before torch is imported."""

import subprocess
import sys

import pytest

from headway import HeadwayModel
from headway.decoding import RaggedKVCache
from headway.decoding.drafters import AUTOREGRESSIVE, DRAFTERS, drafter_by_name
from headway.decoding.drafters.base import build_drafter
from headway.errors import ConfigError
from tests.tiny import tiny_trunk


@pytest.mark.parametrize("name", DRAFTERS)
def test_every_row_of_the_table_builds_a_drafter(name):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2).eval()
    factory = drafter_by_name(name, model)
    if name == AUTOREGRESSIVE:
        assert factory is None
    else:
        assert build_drafter(factory, model, RaggedKVCache(2, 16)).depth >= 1


def test_a_model_without_heads_decodes_autoregressively_with_the_drafter_of_heads():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()
    assert drafter_by_name("heads", model) is None
    assert drafter_by_name("ngram", model) is not None


def test_an_unknown_name_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no drafter 'ngrams'; did you mean 'ngram'\?; there are: heads, ngram, none"):
        drafter_by_name("ngrams", HeadwayModel.from_trunk(tiny_trunk(), count=0))


def test_names_are_read_without_torch():
    code = "import sys; from headway.decoding.drafters import DRAFTERS; print(*DRAFTERS, 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [*DRAFTERS, "False"]
