"""Read with other people's software what `written.py` wrote: `python read_by_others.py FOLDER [a wheel of vLLM]`.

Runs in an environment of its own (`make interop`): speculators 0.9 wants another transformers than Headway.
"""

import importlib.util
import json
import os
import sys
import tempfile
import types
import zipfile
from pathlib import Path

os.environ.setdefault("LOGURU_LEVEL", "ERROR")  # before speculators is imported

import torch
from safetensors.torch import load_file
from speculators import SpeculatorModel, SpeculatorModelConfig
from speculators.convert import convert_model
from speculators.losses import resolve_loss_config
from transformers import AutoConfig
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
READER = "vllm.transformers_utils.configs.speculators"


@torch.no_grad()
def check_speculator(home: Path) -> str:
    """speculators loads the drafter, and its training forward computes the same logits and loss."""
    expected = load_file(home / "computed.safetensors")
    config = SpeculatorModelConfig.from_pretrained(home / "speculators")
    config.transformer_layer_config._attn_implementation = "eager"  # the default is made for a GPU
    model = SpeculatorModel.from_pretrained(home / "speculators", config=config).eval()
    model.load_verifier_weights()
    written = load_file(home / "speculators" / "model.safetensors")
    loaded = model.state_dict()
    for name, tensor in written.items():
        assert torch.equal(loaded[name], tensor), f"{name} is another once loaded"
    logits: list[torch.Tensor] = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: logits.append(output[0]))
    ids, steps = expected["ids"], len(expected["logits"])
    _, loss, _ = model(
        hidden_states=expected["read"][:, :-1],
        input_ids=ids[:, 1:],
        document_ids=torch.zeros_like(ids[:, 1:]),
        verifier_last_hidden_states=expected["unnormed"][:, 1:],
        ttt_steps=steps,
        loss_config=resolve_loss_config("kl_div", "eager"),
    )
    worst = 0.0
    for k, (theirs, ours) in enumerate(zip(logits, expected["logits"], strict=True)):
        end = ids.shape[1] - 1 - k
        torch.testing.assert_close(theirs[:end], ours[:end], rtol=1e-4, atol=1e-4)
        worst = max(worst, float((theirs[:end] - ours[:end]).abs().max()))
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=1e-5)
    return f"{steps} steps, logits within {worst:.1e}, loss {loss:.6f} and {expected['loss']:.6f}"


def check_converter(home: Path, verifier: Path) -> str:
    """speculators' own converter makes the same tensors of the native export."""
    said = json.loads((home / "eagle3" / "config.json").read_text())
    ids = said["eagle_aux_hidden_state_layer_ids"]
    with tempfile.TemporaryDirectory() as made:
        convert_model(
            str(home / "eagle3"),
            str(verifier),
            "eagle3",
            output_path=made,
            norm_before_residual=said["norm_before_residual"],
            eagle_aux_hidden_state_layer_ids=ids,
        )
        theirs, ours = load_file(Path(made) / "model.safetensors"), load_file(home / "speculators" / "model.safetensors")
        config = json.loads((Path(made) / "config.json").read_text())
    assert set(theirs) == set(ours) - {"embed_tokens.weight"}, "other tensors than in our own"
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), f"{name} is another once converted"
    return f"{len(theirs)} tensors as in our own, draft vocabulary {config['draft_vocab_size']}"


def check_transformers(folder: Path) -> str:
    """The configs of native drafters are those of a Llama to transformers."""
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "llama" and config.num_hidden_layers == 1
    return f"{config.model_type}, {config.num_hidden_layers} layer, rope {config.rope_parameters}"


def vllms_reader(wheel: Path, into: Path) -> types.ModuleType:
    """vLLM's reader of speculators' configs, out of its wheel: vLLM itself needs a GPU's libraries."""
    inner = READER.replace(".", "/")
    with zipfile.ZipFile(wheel) as packed:
        for name in ("base.py", "algos.py", "__init__.py"):
            packed.extract(f"{inner}/{name}", into)
    for name in (
        "vllm",
        "vllm.transformers_utils",
        "vllm.transformers_utils.configs",
        "vllm.transformers_utils.configs.speculators",
    ):
        package = types.ModuleType(name)
        package.__path__ = [str(into / name.replace(".", "/"))]
        sys.modules[name] = package
    utils = sys.modules["vllm.transformers_utils.utils"] = types.ModuleType("vllm.transformers_utils.utils")
    utils.without_trust_remote_code = lambda kwargs: kwargs  # what its import asks for, and reading a folder does not
    loaded = types.ModuleType("")
    for name in ("algos", "base"):
        spec = importlib.util.spec_from_file_location(
            f"vllm.transformers_utils.configs.speculators.{name}", into / inner / f"{name}.py"
        )
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
    return loaded


def check_vllm(home: Path, reader: types.ModuleType) -> str:
    said = json.loads((home / "speculators" / "config.json").read_text())
    found = reader.SpeculatorsConfig.extract_vllm_speculative_config(said)
    assert found["method"] == "eagle3" and found["num_speculative_tokens"] == 3, found
    return str({name: found[name] for name in ("method", "num_speculative_tokens")})


def main(folder: Path, wheel: Path | None) -> None:
    homes = sorted(path.parent for path in folder.glob("*/computed.safetensors"))
    assert homes, f"{folder} holds nothing to read"
    with tempfile.TemporaryDirectory() as into:
        reader = vllms_reader(wheel, Path(into)) if wheel else None
        for home in homes:
            print(f"{home.name}: speculators: {check_speculator(home)}")
            print(f"{home.name}: its converter: {check_converter(home, folder / home.name.split('-')[0])}")
            print(f"{home.name}: transformers: {check_transformers(home / 'eagle3')}")
            if reader:
                print(f"{home.name}: vLLM: {check_vllm(home, reader)}")
    print(f"eagle: transformers: {check_transformers(folder / 'eagle')}")
    if wheel is None:
        print("vLLM's reader was not asked: make interop VLLM_WHEEL=vllm-0.33.0-....whl")
    print("all read")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
