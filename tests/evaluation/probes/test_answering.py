"""Answers are the model's own, whatever drafts, whoever decodes beside them, and wherever a journal already has them."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from headway import HeadwayModel, embedded_path
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.answer_log import AnswerLog, fingerprint
from headway.evaluation.probes.answering import Answerer, drawn
from tests.tiny import tiny_trunk
from tests.training.recipes import save_tokenizer

PROMPTS = ["Once upon a time", "3 + 4 =", "The cat", "import os", "Lily and Tom went to the park and"]


@pytest.fixture(scope="module")
def model() -> HeadwayModel:
    return HeadwayModel.from_pretrained("embedded").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


def test_answers_are_those_of_transformers_with_heads_and_without(model, tokenizer) -> None:
    expected = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = model.trunk.generate(
                inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=12, do_sample=False
            )
        expected.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    for plain in (False, True):
        assert Answerer(model, tokenizer, max_new_tokens=12, batch_size=2, plain=plain)(PROMPTS) == expected


def test_what_is_drawn_rests_on_the_seed_alone(model, tokenizer) -> None:
    def answers(prompts: list[str], seeds: list[int], **how: object) -> list[str]:
        return Answerer(model, tokenizer, max_new_tokens=10, temperature=0.9, **how)(prompts, seeds)

    together = answers(PROMPTS[:3], [7, 8, 9], batch_size=3)
    assert together == answers(PROMPTS[:3], [7, 8, 9], batch_size=2, plain=True)
    assert together[1:2] == answers(PROMPTS[1:2], [8])
    assert len(set(answers(PROMPTS[:1] * 6, list(range(6))))) > 1


def test_a_stop_string_ends_an_answer(model, tokenizer) -> None:
    whole = Answerer(model, tokenizer, max_new_tokens=40)(["def f(x):"])[0]
    assert "\n" in whole
    cut = Answerer(model, tokenizer, max_new_tokens=40, stop=["\n"])(["def f(x):"])[0]
    assert whole.startswith(cut) and cut.split("\n")[0] == whole.split("\n")[0] and len(cut) < len(whole)


def test_a_trunk_that_ragged_batches_do_not_suit_answers_all_the_same(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    odd = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    model = HeadwayModel(odd, None).eval()
    found = Answerer(model, words, max_new_tokens=6, batch_size=2)(["one two three", "cat", "on a mat in rain"])
    for prompt, text in zip(["one two three", "cat", "on a mat in rain"], found, strict=True):
        ids = words(prompt, return_tensors="pt")["input_ids"]
        out = odd.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
        assert text == words.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_what_the_journal_has_is_not_computed_again(model, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.answers.jsonl"

    def answerer(**how: object) -> Answerer:
        return Answerer(model, tokenizer, **{"max_new_tokens": 6, "journal": AnswerLog(path), "name": "m"} | how)

    first = answerer()(PROMPTS[:3])
    with path.open("a") as file:
        file.write('{"key": "cut o')  # the power failed here
    assert answerer()([*PROMPTS[:3], PROMPTS[3], PROMPTS[3]])[:3] == first
    assert len(path.read_text().splitlines()) == 5 and len(AnswerLog(path).texts) == 4
    answered = answerer()(PROMPTS[:4])

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("headway.evaluation.probes.answering.Engine.submit", forbidden)
    assert answerer()(PROMPTS[:4]) == answered and answered[:3] == first
    for other in ({"name": "another"}, {"max_new_tokens": 7}, {"plain": True}, {"stop": ["x"]}):
        with pytest.raises(AssertionError, match="computed again"):
            answerer(**other)(PROMPTS[:1])
    with pytest.raises(AssertionError, match="computed again"):
        answerer()(PROMPTS[:1], [0])  # drawn, not greedy


def test_an_interrupted_call_keeps_what_was_done(model, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.decoding import Engine

    step, count = Engine.step, [0]

    def tiring(self: Engine) -> None:
        count[0] += 1
        if count[0] > 12:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(Engine, "step", tiring)
    path = tmp_path / "a.answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        Answerer(model, tokenizer, max_new_tokens=8, batch_size=1, plain=True, journal=AnswerLog(path))(PROMPTS)
    assert 1 <= len(AnswerLog(path).texts) < len(PROMPTS)


def test_too_long_a_prompt_is_an_error_and_never_cut(model, tokenizer) -> None:
    answer = Answerer(model, tokenizer, max_new_tokens=8)
    assert answer.window is not None
    with pytest.raises(DataError, match=f"are more than the {answer.window} tokens"):
        answer(["word " * answer.window])
    with pytest.raises(ConfigError, match="no chat template"):
        Answerer(model, tokenizer, max_new_tokens=8, chat=True)
    with pytest.raises(DataError, match="empty"):
        answer([""])


def test_weights_that_changed_are_another_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    before = fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert fingerprint(str(tmp_path)) != before


def test_a_limit_draws_in_order_and_with_the_seed() -> None:
    assert drawn("abcdef", 3, 1) == drawn("abcdef", 3, 1) == sorted(drawn("abcdef", 3, 1))
    assert drawn("abc", None, 0) == drawn("abc", 9, 0) == ["a", "b", "c"]
