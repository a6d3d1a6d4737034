"""Denoised rows are new in every epoch, the same in every worker, and a resumed run repeats them."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway import HeadwayModel
from headway.data import Collator
from headway.data.denoising import prefix_lm
from headway.errors import ConfigError, DataError, UnsupportedModelError
from headway.model import load_tokenizer
from headway.objectives import MultiToken, NextToken, Registers
from headway.training import finetune, pretrain
from headway.training.configs import FinetuneConfig, PretrainConfig
from headway.training.datasets import build_dataset
from headway.training.denoising import DenoisedRows, check_sees_both_ways
from headway.training.loop import run
from tests.tiny import ARCHITECTURES, tiny_trunk
from tests.training.recipes import WORDS, losses, save_model, save_tokenizer, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}
SHAPE = {"hidden_size": 16, "layers": 2, "attention_heads": 2, "key_value_heads": 1, "intermediate_size": 16}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("texts") / "train.jsonl"
    rows = [{"text": " ".join(draw.choices(WORDS, k=draw.randint(4, 60)))} for _ in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def config_of(model: str, texts: str, out: Path, **changes: object) -> FinetuneConfig:
    settings = {"model": model, "data": texts, "output_dir": out, "denoising": "ul2", "objective": "next-token", **QUICK, **changes}
    return FinetuneConfig(**settings)


def read(rows: DenoisedRows, workers: int = 0) -> list[dict[str, list]]:
    return list(DataLoader(rows, batch_size=None, num_workers=workers, collate_fn=lambda row: row))


@pytest.mark.parametrize("denoising", ["ul2", "prefix-lm"])
def test_rows_are_new_in_every_epoch_and_the_same_for_any_number_of_workers(
    model: str, texts: str, out: Path, denoising: str
) -> None:
    config = config_of(model, texts, out, denoising=denoising, bidirectional_prefix=True)
    rows = build_dataset(config, load_tokenizer(model))
    first = read(rows)
    assert read(rows, workers=2) == first and [rows[index] for index in reversed(range(len(rows)))] == first[::-1]
    rows.epoch = 1
    changed = [one != other for one, other in zip(first, read(rows, workers=2), strict=True)]
    assert sum(changed) > 0.7 * len(rows)  # a short text has few ways to be split
    rows.epoch = 0
    assert read(rows) == first
    assert read(build_dataset(dataclasses.replace(config, seed=1), load_tokenizer(model))) != first
    batch = Collator(0)(first)
    assert batch["input_ids"].shape[1] <= 48
    assert ((batch["labels"] == -100) == (batch["prefix"] | (batch["segments"] < 0))).all()


def test_all_text_is_in_the_rows_of_an_epoch(model: str, texts: str, out: Path) -> None:
    tokenizer = load_tokenizer(model)
    plain = build_dataset(config_of(model, texts, out, denoising="none"), tokenizer)
    denoised = build_dataset(config_of(model, texts, out), tokenizer)
    limit = tokenizer.convert_tokens_to_ids("[NLU]")
    assert limit == 24 + 2  # after the words: the added tokens are the last

    def words(rows: object) -> list[int]:
        found = [rows[index]["input_ids"] for index in range(len(rows))]
        return sorted(token for row in found for token in row if 3 < token < limit)

    assert words(plain) == words(denoised)


def test_a_run_sets_the_epoch_of_its_rows(model: str, texts: str, out: Path) -> None:
    config = config_of(model, texts, out, limit=8, epochs=3)
    rows = build_dataset(config, load_tokenizer(model))
    told = []
    rows.transform = lambda document, draw: told.append(rows.epoch) or prefix_lm(document["input_ids"], document["labels"], draw)
    run(config, HeadwayModel.from_trunk(model, count=0), NextToken(), rows)
    assert told == sorted(told) and len({told.count(epoch) for epoch in range(3)}) == 1 and set(told) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["multi-token", "registers"])
def test_a_run_interrupted_in_its_second_epoch_resumes_with_the_same_noise(
    model: str, texts: str, tmp_path: Path, objective: str
) -> None:
    config = config_of(
        model,
        texts,
        tmp_path / "whole",
        objective=objective,
        epochs=3,
        limit=16,
        save_steps=1,
        validation=texts,
        bidirectional_prefix=True,
    )
    config = dataclasses.replace(config, family="parallel" if objective == "multi-token" else None, validation_split="train")
    finetune(config)
    steps = sorted(int(folder.name.split("-")[1]) for folder in (tmp_path / "whole").glob("checkpoint-*"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / f"checkpoint-{steps[-1]}")
    (tmp_path / "cut" / "model.safetensors").unlink()
    finetune(dataclasses.replace(config, output_dir=tmp_path / "cut"))
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_pretraining_saves_the_tokens_of_denoising_with_the_model(texts: str, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "out"
    config = PretrainConfig(
        data=texts,
        tokenizer=str(tmp_path / "tokenizer"),
        output_dir=out,
        denoising="ul2",
        max_steps=3,
        bf16=False,
        **{**SHAPE, **QUICK},
    )
    pretrain(config)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer("[S2S] one <extra_id_0>")["input_ids"]) == 3
    assert AutoModelForCausalLM.from_pretrained(out).get_input_embeddings().weight.shape[0] == len(tokenizer)


@pytest.mark.slow
def test_embeddings_are_resized_for_special_tokens_and_not_for_spelt_tokens(texts: str, tmp_path: Path) -> None:
    model = str(save_model(tmp_path / "small", vocab_size=28))
    options = {"max_steps": 2, "objective": "multi-token", "family": "parallel"}
    finetune(config_of(model, texts, tmp_path / "special", **options))
    finetune(config_of(model, texts, tmp_path / "spelt", **{**options, "max_length": 120}, denoising_tokens="text", lora=True))
    special, spelt = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("special", "spelt"))
    size = len(AutoTokenizer.from_pretrained(tmp_path / "special"))
    assert size > 28
    assert (
        special.config.vocab_size
        == len(special.get_input_embeddings().weight)
        == len(special.get_output_embeddings().weight)
        == size
    )
    assert spelt.config.vocab_size == 28
    assert HeadwayModel.from_pretrained(tmp_path / "special").count == 2


def naive_mask(segments: list[int], prefix: list[bool], window: int | None) -> torch.Tensor:
    size = len(segments)
    seen = torch.zeros(size, size, dtype=torch.bool)
    for query in range(size):
        for key in range(size):
            near = window is None or abs(query - key) < window
            mutual = prefix[query] and prefix[key]
            seen[query, key] = segments[query] == segments[key] and near and (key <= query or mutual)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prefixes_attend_in_both_directions_and_nothing_else_changes(architecture: str) -> None:
    ours = HeadwayModel.from_trunk(tiny_trunk(architecture), count=0)
    segments, prefix = [0] * 12 + [1] * 6, [True] * 9 + [False] * 3 + [True] * 2 + [False] * 4
    window = getattr(ours.view.config, "sliding_window", None)
    positions = torch.tensor([[*range(12), *range(6)]])
    masks = ours.view.masks(positions, positions, torch.tensor([segments]), torch.tensor([segments]), prefix=torch.tensor([prefix]))
    by_type = masks if isinstance(masks, dict) else {"sliding_attention" if window else "full_attention": masks}
    for kind, mask in by_type.items():
        assert torch.equal(mask[0, 0], naive_mask(segments, prefix, window if kind == "sliding_attention" else None)), kind


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_prefixes_have_the_loss_of_unpacked_ones_with_heads_and_with_registers(architecture: str) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), count=2)
    draw = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, 60, (size,), generator=draw) for size in (11, 5, 9)]
    splits = (6, 2, 5)

    def batch_of(parts: list[int]) -> dict[str, torch.Tensor]:
        ids = torch.cat([documents[part] for part in parts])
        read = torch.cat([torch.arange(len(documents[part])) < splits[part] for part in parts])
        number = torch.cat([torch.full((len(documents[part]),), place) for place, part in enumerate(parts)])
        return {"input_ids": ids[None], "labels": ids.masked_fill(read, -100)[None], "segments": number[None], "prefix": read[None]}

    for objective in (MultiToken(), Registers(model)):
        together = objective.loss(model, batch_of([0, 1, 2]), 0.0, items=1).total
        apart = sum(objective.loss(model, batch_of([part]), 0.0, items=1).total for part in range(3))
        torch.testing.assert_close(together, apart, rtol=2e-5, atol=1e-4)
        causal = {name: value for name, value in batch_of([0, 1, 2]).items() if name != "prefix"}
        assert abs(objective.loss(model, causal, 0.0, items=1).total - together) > 1e-2


def test_mistakes_have_clear_messages(model: str, data: str, texts: str, out: Path) -> None:
    with pytest.raises(ConfigError, match="denoising_tokens: text"):
        finetune(config_of(model, texts, out, lora=True, max_length=120, max_steps=1))
    with pytest.raises(DataError, match="prompts or messages"):
        finetune(config_of(model, data, out, max_steps=1))
    with pytest.raises(DataError, match="too short"):
        finetune(config_of(model, texts, out, max_length=5, max_steps=1))
    with pytest.raises(ConfigError, match="bidirectional_prefix needs denoising"):
        config_of(model, texts, out, denoising="none", bidirectional_prefix=True)
    neo = tiny_trunk("gpt_neo", attention_types=[[["global"], 3]])
    with pytest.raises(UnsupportedModelError, match="attend in both directions"):
        check_sees_both_ways(HeadwayModel.from_trunk(neo, count=0))
