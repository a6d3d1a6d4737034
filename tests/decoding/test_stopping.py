"""A sequence ends at the first stop, wherever in the candidates, and text is cut in one way."""

import pytest
from transformers import AutoTokenizer

from headway import embedded_path
from headway.decoding.stopping import GeneratedTextMatcher, StoppingCriteria, check_stop_strings, completion_text, cut_at_stop
from headway.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


@pytest.mark.parametrize(
    ("new", "expected"), [([4, 5], (2, False)), ([4, 2, 5], (2, True)), ([7, 2], (1, True)), ([], (0, False))], ids=str
)
def test_an_end_token_is_the_last_token_that_counts(new, expected):
    assert StoppingCriteria([2, 7]).truncate_at_stop([1, 2, 3], 3, new) == expected


def test_a_stop_string_across_committed_and_new_tokens_is_found_but_not_across_the_prompt(tokenizer):
    tokens = tokenizer("One day Tim went out.", add_special_tokens=False).input_ids
    stopping = StoppingCriteria([], GeneratedTextMatcher(["day T"], tokenizer))
    ends = [n + stopping.truncate_at_stop(tokens[:n], 0, tokens[n:])[0] for n in range(3)]
    assert len(set(ends)) == 1 and "day T" in tokenizer.decode(tokens[: ends[0]]) and ends[0] < len(tokens)
    half = next(n for n in range(len(tokens)) if "day" in tokenizer.decode(tokens[:n]))
    assert stopping.truncate_at_stop(tokens[:half], half, tokens[half:]) == (len(tokens) - half, False)


@pytest.mark.parametrize(("keep", "expected"), [(False, "ab"), (True, "abcd")])
def test_the_earliest_stop_string_cuts(keep, expected):
    assert cut_at_stop("abcdefcd", ["ef", "cd"], keep) == expected
    assert cut_at_stop("abcd", ["x"], keep) == "abcd" and cut_at_stop("abcd", [], keep) == "abcd"


def test_a_kept_stop_string_of_special_tokens_is_decoded(tokenizer):
    end = tokenizer.eos_token
    tokens = [*tokenizer("One day", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    assert completion_text(tokenizer, tokens, [end]) == completion_text(tokenizer, tokens[:-1], [])
    assert completion_text(tokenizer, tokens, [end], keep=True).endswith(end) and completion_text(None, tokens, []) == ""


def test_stop_strings_need_a_tokenizer_and_must_be_texts(tokenizer):
    assert check_stop_strings("ab", tokenizer) == ["ab"] and check_stop_strings(None, None) == []
    for strings, given in ((["a"], None), (["a", ""], tokenizer), ([3], tokenizer)):
        with pytest.raises(ConfigError, match="stop_strings"):
            check_stop_strings(strings, given)
