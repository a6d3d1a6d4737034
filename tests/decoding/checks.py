"""What holds for every drafter: the tokens are the trunk's own, alone or in company, and what is drawn has its distribution."""

from transformers import GenerationConfig

from headway import HeadwayModel
from headway.decoding.batch import SequenceState
from headway.decoding.engine import Engine
from headway.decoding.sampler import Sampler
from headway.decoding.stopping import StoppingCriteria
from tests.decoding.test_generate import padded, reference
from tests.decoding.test_sampling import check_drawn, enumerated
from tests.tiny import tiny_trunk

DRAWS = 3000


def check_greedy(model, rows, drafter, **kwargs):
    """Each row as transformers continues it alone."""
    ids, mask = padded(rows, "left")
    out = model.generate(ids, attention_mask=mask, drafter=drafter, adaptive=False, pad_token_id=0, **kwargs)
    expected = reference(model.trunk, rows, pad_token_id=0, **kwargs)
    longest = max(map(len, expected))
    assert out.sequences[:, ids.shape[1] :].tolist() == [row + [0] * (longest - len(row)) for row in expected]
    return out.stats


def check_company(model, prompts, limits, drafter):
    """More rows than the engine takes at once, of different ends: each joins when another leaves, and says what it says alone."""
    engine = Engine(model, drafter, max_rows=2, prefill_chunk=5, adaptive=False)
    config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    scores, stops = Sampler(config, model.device), StoppingCriteria(config)
    rows = [SequenceState(list(p), len(p), len(p) + n, scores, stops) for p, n in zip(prompts, limits, strict=True)]
    for row in rows:
        engine.add(row)
    engine.run()
    for row, prompt, limit in zip(rows, prompts, limits, strict=True):
        assert row.new == reference(model.trunk, [prompt], max_new_tokens=limit, eos_token_id=None)[0]
    return engine.stats_collector.stats()


def check_sampling(drafter, case, length=4):
    """Every sequence of a 5-token vocabulary, enumerated and drawn."""
    trunk = tiny_trunk(vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = HeadwayModel.from_trunk(trunk, count=0)
    prompts = [[0, 1, 0, 2, 0, 1], [3, 4, 2, 3]]
    ids, mask = (rows.repeat(DRAWS, 1) for rows in padded(prompts, "left"))
    out = model.generate(
        ids,
        attention_mask=mask,
        drafter=drafter,
        adaptive=False,
        do_sample=True,
        max_new_tokens=length,
        seed=5,
        eos_token_id=None,
        **case,
    )
    assert all(0 < kept < reached for kept, reached in zip(out.stats.accepted, out.stats.reached, strict=True))
    drawn = out.sequences[:, ids.shape[1] :].view(DRAWS, len(prompts), length)
    for row, prompt in enumerate(prompts):
        check_drawn(drawn[:, row].tolist(), enumerated(trunk, prompt, case, length))
