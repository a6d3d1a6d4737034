"""Names of MTP tensors in published checkpoints, and the tensors of `sequential` heads that the names stand for.

Names inside the heads follow transformers' `MtpLayer`: `enorm`, `hnorm`, `eh_proj`, `post_norm`, and `mtp_block.*`, a layer of the
trunk's own kind. A layout renames norms and projection; tensors inside `mtp_block` keep the trunk's names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OWN = ("enorm", "hnorm", "eh_proj", "post_norm")  # norms and projection around the layer
INPUT, OUTPUT = "input", "output"  # copies of the trunk's embedding and unembedding


@dataclass(frozen=True)
class MTPTensorNames:
    """Names of MTP layer k on a trunk of N layers; `{layer}` stands for N + k, `{k}` for k."""

    about: str
    root: str  # regular expression at the start of all MTP names, and of no name of the trunk
    block: str  # prefix of the layer's own tensors
    own: str  # prefix of norms and projection
    names: Mapping[str, str]  # member of OWN -> name on disk
    copies: Mapping[str, str] = field(default_factory=dict)  # name on disk -> INPUT or OUTPUT
    hidden_first: bool = False  # the projection's input is [hidden, embedding], not [embedding, hidden]
    several: bool = True  # every layer has a projection and norms

    def to_checkpoint_name(self, k: int, inner: str, depth: int) -> str:
        """Name on disk.

        Args:
            k: index of the head, from 0.
            inner: name of the tensor in the head.
            depth: number of layers of the trunk.
        """
        part, _, rest = inner.partition(".")
        prefix = self.own if part in OWN else self.block
        inner = f"{self.names[part]}.{rest}" if part in OWN else rest
        return prefix.format(k=k, layer=depth + k) + inner

    def from_checkpoint_name(self, name: str, depth: int) -> tuple[int, str] | None:
        """Index of the head, and INPUT, OUTPUT or the name in the head; None for a name outside the MTP layers.

        Args:
            name: name on disk.
            depth: number of layers of the trunk.
        """
        for prefix, own in ((self.own, True), (self.block, False)):
            pattern = re.escape(prefix).replace(r"\{layer\}", r"(\d+)").replace(r"\{k\}", r"(\d+)")
            if (found := re.match(pattern, name)) is None:
                continue
            k = int(found[1]) - (depth if "{layer}" in prefix else 0) if found.groups() else 0
            rest = name[found.end() :]
            if k < 0:
                return None
            if not own:
                return k, f"mtp_block.{rest}"
            if rest in self.copies:
                return k, self.copies[rest]
            for part, on_disk in self.names.items():
                if rest.startswith(f"{on_disk}."):
                    return k, part + rest[len(on_disk) :]
        return None

    def holds(self, name: str, depth: int) -> bool:
        """True if the tensor `name` on disk belongs to an MTP layer, with a known name inside the layer or not."""
        found = re.match(self.root, name)
        return found is not None and (not found.groups() or int(found[1]) >= depth)

    def pattern(self, names: Iterable[str]) -> str:
        """Regular expression of the layers that `names` on disk belong to, for `_keys_to_ignore_on_load_unexpected`."""
        numbers = sorted({int(number) for name in names for number in re.findall(f"^{self.root}", name) if number.isdigit()})
        either = "|".join(map(str, numbers))
        return "^" + self.root.replace(r"(\d+)", f"({either})" if len(numbers) > 1 else either)


MTP_TENSOR_NAMES: dict[str, MTPTensorNames] = {
    "deepseek": MTPTensorNames(
        about="DeepSeek-V3, GLM-4-MoE and transformers' own: layers behind the trunk's last",
        root=r"model\.layers\.(\d+)\.",
        block="model.layers.{layer}.",
        own="model.layers.{layer}.",
        names={"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "post_norm": "shared_head.norm"},
        copies={"embed_tokens.weight": INPUT, "shared_head.head.weight": OUTPUT},
    ),
    "qwen3_next": MTPTensorNames(
        about="Qwen3-Next and Qwen3.5: one layer under `mtp.`",
        root=r"mtp\.",
        block="mtp.layers.{k}.",
        own="mtp.",
        names={"enorm": "pre_fc_norm_embedding", "hnorm": "pre_fc_norm_hidden", "eh_proj": "fc", "post_norm": "norm"},
        copies={"embed_tokens.weight": INPUT, "lm_head.weight": OUTPUT},
        several=False,
    ),
    "mimo": MTPTensorNames(
        about="MiMo: layers under `model.mtp_layers.`, hidden state first",
        root=r"model\.mtp_layers\.",
        block="model.mtp_layers.{k}.",
        own="model.mtp_layers.{k}.",
        names={
            "enorm": "token_layernorm",
            "hnorm": "hidden_layernorm",
            "eh_proj": "input_proj",
            "post_norm": "final_layernorm",
        },
        hidden_first=True,
    ),
}
