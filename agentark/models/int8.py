"""Write a checkpoint with 8-bit weights, which vLLM runs several times faster on a CPU: `python -m agentark.models.int8
FOLDER OUT`.

Every matrix has 8-bit weights with one scale per row. vLLM rounds the activations to 8 bits with one scale per token
(format "int-quantized" of compressed-tensors, W8A8). Norms, biases and the input embedding keep 16 bits.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from agentark import StudyError, finish
from agentark.files import staged

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SCHEME = {"num_bits": 8, "type": "int", "symmetric": True}
QUANTISATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear", "ParallelLMHead"],
            "weights": SCHEME | {"strategy": "channel", "dynamic": False},
            "input_activations": SCHEME | {"strategy": "token", "dynamic": True},
        }
    },
    "ignore": [],
}


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 8-bit weights and scales of a matrix: a row equals its 8-bit weights times its scale, within half a scale."""
    weight = weight.float()
    scale = (weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127).to(torch.bfloat16)
    return (weight / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def convert(folder: Path, out: Path) -> None:
    """Write the checkpoint in `folder` (hub's format, text only) to `out`, with 8-bit weights.

    Raises StudyError if `folder` contains no language model with the usual layout.
    """
    weights = {name: w for file in sorted(folder.glob("*.safetensors")) for name, w in load_file(file).items()}
    if EMBEDDING not in weights:
        raise StudyError(f"{folder}: no weights named {EMBEDDING}; name a folder with a language model")
    weights.setdefault(HEAD, weights[EMBEDDING])  # a model with a tied head saves one matrix for both
    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        weight = weight.to(torch.bfloat16)
        if weight.ndim == 2 and name != EMBEDDING:
            found[name], found[f"{name}_scale"] = quantised(weight)
        else:
            found[name] = weight
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "tie_word_embeddings": False, "quantization_config": QUANTISATION}
    with staged([out]) as (partial,):
        partial.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.suffix in (".json", ".jinja", ".txt") and "index" not in file.name:
                shutil.copyfile(file, partial / file.name)
        save_file(found, partial / "model.safetensors", {"format": "pt"})
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    if len(sys.argv) != 3:
        raise StudyError("name the folder of a checkpoint and the folder to write")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    finish(main)
