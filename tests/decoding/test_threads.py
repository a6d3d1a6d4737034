"""Threads that use one model at the same time: decoding stays exact, and the other thread's forward is transformers' own."""

import sys
import threading

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import heads_drafter
from headway.trunk.attention import GQA_PACKED, use_decode_attention
from tests.references import FREE, short_prompts
from tests.tiny import tiny_trunk

IDS = torch.tensor([[5, 9, 23, 4, 17], [7, 31, 8, 2, 40]])


@pytest.fixture
def switching():
    """Threads take turns a hundred times as often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def beside(work, other):
    """Call `other` over and over while `work` runs; its first exception is raised."""
    done, errors = threading.Event(), []

    def loop():
        while not done.is_set():
            try:
                other()
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    assert not errors, errors[0]


@pytest.mark.parametrize("family", ["parallel", "eagle3", "sequential"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_generate_beside_transformers_generate_gives_the_tokens_of_both(switching, family, adaptive):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3).eval()
    length = {"max_new_tokens": 16, "pad_token_id": 0, **FREE}
    expected = model.generate(IDS, **length).sequences
    prompts = [torch.tensor([p]) for p in short_prompts(4)]
    theirs = [model.trunk.generate(p, do_sample=False, **length) for p in prompts]

    def work():
        for _ in range(6):
            assert torch.equal(model.generate(IDS, adaptive=adaptive, **length).sequences, expected)

    def other():
        for prompt, own in zip(prompts, theirs, strict=True):
            assert torch.equal(model.trunk.generate(prompt, do_sample=False, **length), own)

    beside(work, other)


@pytest.mark.parametrize("family", ["parallel", "eagle3"])
def test_two_threads_generate_from_one_model(switching, family):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3).eval()
    length = {"max_new_tokens": 16, **FREE}
    first, second = (model.generate(ids, **length).sequences for ids in (IDS, IDS[:1, :3]))

    def work():
        for _ in range(6):
            assert torch.equal(model.generate(IDS, drafter=heads_drafter(), **length).sequences, first)

    def other():
        assert torch.equal(model.generate(IDS[:1, :3], **length).sequences, second)

    beside(work, other)
    assert model.trunk.config._attn_implementation == "sdpa"
    assert not any(layer._forward_pre_hooks for layer in model.view.layers)


def test_a_forward_of_another_thread_keeps_dropout_and_bits_while_the_attention_is_switched():
    trunk = tiny_trunk(attention_dropout=0.5)
    trunk.train()

    def forward():
        torch.manual_seed(0)
        return trunk(IDS).logits.detach()

    expected, seen = forward(), []
    with use_decode_attention(trunk.config):
        assert trunk.config._attn_implementation == GQA_PACKED["sdpa"]
        thread = threading.Thread(target=lambda: seen.append(forward()))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], expected)


def test_the_last_user_of_a_config_restores_the_attention():
    config = tiny_trunk().config
    with use_decode_attention(config):
        outer = use_decode_attention(config)
        outer.__enter__()
    assert config._attn_implementation == GQA_PACKED["sdpa"]
    outer.__exit__(None, None, None)
    assert config._attn_implementation == "sdpa"


def test_captured_hidden_states_are_those_of_the_capturing_thread():
    view = HeadwayModel.from_trunk(tiny_trunk(), count=0).view
    with torch.no_grad(), view.capture_hidden_states([1]) as captured:
        view.model(IDS)
        thread = threading.Thread(target=lambda: view.model(IDS[:1, :2]))
        thread.start()
        thread.join()
        assert captured[1].shape == (2, 5, 32)
