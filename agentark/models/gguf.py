"""Conversion between GGUF and the hub's format: unpack a quantised model for training, write a student's LoRA adapter
for llama.cpp and Ollama.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; adapters as llama.cpp's convert_lora_to_gguf.py.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from agentark import StudyError
from agentark.files import write_atomically
from agentark.models import loading

MISSING = "llama.cpp: not installed here; add it with `pip install xllamacpp gguf`, or name a model in the hub's format"
WEIGHTS = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.weight$")  # PEFT's names


def unpack(file: Path, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the model of a GGUF file to `out` in the hub's format, its weights dequantised to `dtype`.

    Raises StudyError if the file is not loadable or package gguf is missing.
    """
    require()
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    except Exception as error:  # a damaged file makes the loader raise errors of many types
        raise loading.unloadable(file, error) from error
    # Remove the traces of quantisation, since the weights are dequantised now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_adapter(adapter: Path, base: Path, out: Path) -> None:
    """Write the LoRA adapter in the folder `adapter` (PEFT's format) for the model in `base` to the GGUF file `out`.

    Raises StudyError if llama.cpp lacks the architecture, or if the adapter holds anything but LoRA matrices of weights
    that exist in a GGUF file.
    """
    gguf = require()
    settings, config = json.loads((adapter / "adapter_config.json").read_text()), AutoConfig.from_pretrained(base)
    names = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if config.model_type not in names:
        raise StudyError(f"{base}: llama.cpp has no architecture {config.model_type}")
    places = gguf.get_tensor_name_map(names[config.model_type], config.num_hidden_layers)
    tensors = {}
    for key, matrix in load_file(adapter / "adapter_model.safetensors").items():
        found = WEIGHTS.match(key)
        place = places.get_name(found[1]) if found else None
        if found is None or place is None:
            raise StudyError(f"{adapter}: {key} has no counterpart in a GGUF file; train LoRA on linear layers alone")
        if found[2] == "B" and config.model_type == "llama":
            matrix = interleaved(found[1], matrix, config)
        tensors[f"{place}.weight.lora_{found[2].lower()}"] = matrix.float().numpy()
    write_atomically(out, lambda path: write(gguf, path, config.model_type, float(settings["lora_alpha"]), tensors))


def write(gguf, path: Path, architecture: str, alpha: float, tensors: dict) -> None:
    """Write adapter matrices by GGUF name, and LoRA's alpha, to the GGUF file `path`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, values in sorted(tensors.items()):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(name: str, matrix: torch.Tensor, config) -> torch.Tensor:
    """The rows of a query's or key's matrix in llama.cpp's order; other matrices unchanged.

    In each head llama.cpp interleaves the two halves whose rows the rotary embedding pairs.
    """
    kind = name.rpartition(".")[2]
    if kind not in ("q_proj", "k_proj"):
        return matrix
    heads = config.num_attention_heads if kind == "q_proj" else config.num_key_value_heads
    return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape).contiguous()


def require():
    """The package gguf. Raises StudyError if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise StudyError(MISSING) from None
    return gguf
