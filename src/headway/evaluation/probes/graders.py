"""Graders of short answers: functions of question, reference and answer that return a grade."""

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal, get_args

import torch

from headway.errors import ConfigError, DataError
from headway.evaluation.probes.configs import SimpleQAConfig
from headway.evaluation.probes.matching import contains_words, normalise
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.ops import linear_log_probs

Grade = Literal["CORRECT", "INCORRECT", "NOT_ATTEMPTED"]
GRADES: tuple[Grade, ...] = get_args(Grade)
Grader = Callable[[str, str, str], str]  # question, reference, answer -> one of GRADES

REFUSAL = re.compile(
    r"\b((i|we) (do not|dont|cannot|cant|could not|couldnt) (know|say|tell|answer|recall|remember|find|determine|verify|provide)"
    r"|(i am|im|we are) (not (sure|certain|aware|able)|unsure|unable)|no idea|not known to me|(do not|dont) have (any |enough |"
    r"access|information)|(cannot|cant|could not|unable to) (be )?(answer|determine|find|provide|verify)|(is|are) unknown)"
)
NON_ANSWERS = ("", "unknown", "none", "na", "not sure", "not available")
TEMPLATE = """\
Compare an answer with the reference answer to the same question, and give one verdict.
A, correct: it says what the reference says and nothing against it. Wording, spelling, order and expressed doubt do not matter.
B, incorrect: something that it says contradicts the reference, even if it is said with doubt.
C, not attempted: it lacks what the reference says, and contradicts nothing.

Question: Which planet is closest to the Sun?
Reference: Mercury
Answer: mercury, if I remember well
Verdict: A

Question: In which year did the bridge open?
Reference: 1932
Answer: It may have been in 1934.
Verdict: B

Question: Who painted the ceiling?
Reference: Ana Ruiz
Answer: I would have to look that up.
Verdict: C

Question: {question}
Reference: {reference}
Answer: {answer}
Verdict:"""
OPTIONS = (" A", " B", " C")


def build_grader(config: SimpleQAConfig) -> Grader:
    """The grader of the settings.

    Raises:
        ConfigError: the grader does not exist.
        CheckpointError: the model of the grader cannot be loaded.
    """
    if config.grader == "string":
        return by_string
    if config.grader_model is not None:
        model, tokenizer = load_model_and_tokenizer(config.grader_model)
        return by_model(model, tokenizer)
    return imported(config.grader)


def by_string(question: str, reference: str, answer: str) -> Grade:
    """A stand-in for a judge: correct with the reference in whole words, not attempted with a phrase of refusal, else incorrect.

    The stand-in recognises no synonyms, no second spelling of a date, and no contradiction beside the reference.
    """
    if contains_words(answer, reference):
        return "CORRECT"
    text = normalise(answer)
    return "NOT_ATTEMPTED" if text in NON_ANSWERS or REFUSAL.search(text) else "INCORRECT"


def by_model(model: HeadwayModel, tokenizer: Any) -> Grader:
    """A grader that fills a template and takes the option with the highest likelihood under the model."""

    def grade(question: str, reference: str, answer: str) -> Grade:
        texts = {"question": question, "reference": reference, "answer": answer}
        prompt = re.sub(r"\{(\w+)\}", lambda match: " ".join(texts[match[1]].split()), TEMPLATE)  # each text on one line
        scores = log_likelihoods(model, tokenizer, prompt, OPTIONS)
        return GRADES[scores.index(max(scores))]

    return grade


@torch.inference_mode()
def log_likelihoods(model: HeadwayModel, tokenizer: Any, prompt: str, options: Sequence[str]) -> list[float]:
    """Log-probabilities of the options after the prompt, in nats. Prompt and option are tokenised together, as in lm-eval.

    Raises:
        DataError: prompt and option are longer than the context length of the model.
    """
    context_length = model.view.context
    start = len(tokenizer(prompt, verbose=False)["input_ids"])
    states: dict[tuple[int, ...], torch.Tensor] = {}  # options of one token share a forward
    scores = []
    for option in options:
        ids = tokenizer(prompt + option, verbose=False)["input_ids"]
        if context_length is not None and len(ids) > context_length:
            raise DataError(
                f"the grader reads at most {context_length} tokens, and an answer to grade takes {len(ids)} with its question."
            )
        before = tuple(ids[:-1])
        if before not in states:
            states[before] = model(torch.tensor([before], device=model.device), count=0).hidden_states[0][0, start - 1 :]
        tokens = torch.tensor(ids[start:], device=model.device)
        scores.append(float(linear_log_probs(states[before], tokens, model.unembedding).log_probs.sum()))
    return scores


def imported(name: str) -> Grader:
    """The function `module:function`, from the Python path or the working directory. Raises ConfigError if there is none."""
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        grader = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the grader {name!r} cannot be imported: {error}. It is named module:function.") from error
    finally:
        sys.path.remove("")
    if not callable(grader):
        raise ConfigError(f"the grader {name!r} is a {type(grader).__name__}, not a function of question, reference and answer.")
    return grader  # type: ignore[no-any-return]
