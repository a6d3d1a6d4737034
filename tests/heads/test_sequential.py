"""Sequential heads compute what transformers' own MTP layers compute from the same tensors."""

import pytest
import torch
from safetensors.torch import load_file
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from headway import HeadwayModel
from headway.heads import TENSORS_FILE
from tests.tiny import tiny_trunk


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hidden_states_equal_transformers_mtp_layers(tmp_path, count):
    trunk = tiny_trunk()
    model = HeadwayModel.from_trunk(trunk, family="sequential", count=count)
    for parameter in model.heads.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    model.heads.save_pretrained(tmp_path)
    trunk.config.num_mtp_layers = count
    native = MtpModel(trunk, count).eval()
    tensors = {}
    for name, tensor in load_file(tmp_path / TENSORS_FILE).items():
        index, rest = name.removeprefix("model.layers.").split(".", 1)
        rest = rest.replace("shared_head.norm.", "post_norm.")
        own = rest.split(".")[0] in ("enorm", "hnorm", "eh_proj", "post_norm")
        tensors[f"layers.{int(index) - 3}.{rest if own else 'mtp_block.' + rest}"] = tensor
    missing, unexpected = native.load_state_dict(tensors, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("layers.")]

    ids = torch.tensor([[5, 9, 23, 4, 17, 8, 31, 7]])
    states = model(ids).hidden_states
    cache, hidden = MtpCache(config=trunk.config.get_mtp_config()), states[0]
    for k in range(count):
        length = ids.shape[1] - (k + 1)
        hidden = native.forward_layer(
            k, hidden[:, :length], torch.arange(k + 1, k + 1 + length)[None], cache, input_ids=ids[:, k + 1 :]
        )
        torch.testing.assert_close(states[k + 1][:, :length], hidden, rtol=1e-5, atol=1e-5)
