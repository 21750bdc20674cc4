"""Conversion between GGUF and the hub's format: unpack a quantised model for training; write a student as a full model
or as a LoRA adapter for llama.cpp and Ollama.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; adapters as in llama.cpp's convert_lora_to_gguf.py.
"""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from agentark import StudyError, root
from agentark.files import write_atomically
from agentark.models import loading

MISSING = "llama.cpp: not installed here; add it with `pip install xllamacpp gguf`, or name a model in the hub's format"
# Architectures whose weights differ from the hub's only in names and in the order of rows (`interleaved`).
WHOLE = ("llama", "qwen2", "qwen3")
WEIGHTS = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.weight$")  # PEFT's names


def gguf_path(name: str) -> Path:
    """The path of a GGUF file, relative to the project's folder or absolute. Raises StudyError if there is none."""
    file = root() / name
    if file.is_dir():
        raise StudyError(f"{name}: a folder; name the GGUF file in it")
    if not file.is_file():
        raise StudyError(f"{name}: no such GGUF file; download it, or correct the name")
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise StudyError(f"{name}: not a GGUF file")
    return file


@lru_cache
def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def unpack(file: Path, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the model of a GGUF file to `out` in the hub's format, its weights dequantised to `dtype`.

    Raises StudyError if the file is not loadable or package gguf is missing.
    """
    require()
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    except Exception as error:  # a damaged file makes the loader raise errors of many types
        raise loading.loading_error(file, error) from error
    # Remove the quantisation settings, since the weights are dequantised now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_adapter(adapter: Path, base: Path, out: Path) -> None:
    """Write the LoRA adapter in the folder `adapter` (PEFT's format) for the model in `base` to the GGUF file `out`.

    Raises StudyError if llama.cpp lacks the architecture, or if the adapter contains anything other than LoRA matrices
    for weights that exist in a GGUF file.
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
        if found[2] == "B":
            matrix = interleaved(found[1], matrix, config)
        tensors[f"{place}.weight.lora_{found[2].lower()}"] = matrix.float().numpy()
    write_atomically(out, lambda path: write(gguf, path, config.model_type, float(settings["lora_alpha"]), tensors))


def write_model(model: Path, base: Path, out: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the model in the folder `model` to the GGUF file `out`, its matrices as `dtype`: float16 or float32.

    `base` is the GGUF file from which the model's base was unpacked. Its tokenizer, chat template and settings are
    copied. Raises StudyError if the architecture is not one of WHOLE, or if the model lacks a weight of `base`.
    """
    gguf = require()
    reader, config = gguf.GGUFReader(base), AutoConfig.from_pretrained(model)
    architecture = reader.fields["general.architecture"].contents()
    if architecture not in WHOLE or architecture != config.model_type:
        raise StudyError(
            f"{model}: {config.model_type} for {base.name}, which holds {architecture}; a whole model is written for "
            f"{', '.join(WHOLE)} alone: write its adapter"
        )
    places = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), config.num_hidden_layers)
    weights = {}
    for file in sorted(model.glob("*.safetensors")):
        for key, values in load_file(file).items():
            name, _, kind = key.rpartition(".")
            weights[f"{places.get_name(name)}.{kind}"] = interleaved(name, values, config)
    weights.setdefault("output.weight", weights["token_embd.weight"])  # tied embeddings
    kinds = {torch.float16: gguf.LlamaFileType.MOSTLY_F16, torch.float32: gguf.LlamaFileType.ALL_F32}
    names = [tensor.name for tensor in reader.tensors]
    if missing := [name for name in names if name not in weights]:
        raise StudyError(
            f"{model}: no weights for {missing[0]} of {base.name}; name the file that it was unpacked from"
        )

    def fill(path: Path) -> None:
        writer = gguf.GGUFWriter(path, architecture)
        for name, field in reader.fields.items():
            if not name.startswith("GGUF.") and name != "general.architecture":
                array = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), field.types[0], array)
        writer.kv_data[0].pop("general.file_type", None)
        writer.add_file_type(kinds[dtype])
        for name in names:
            values = weights[name]
            writer.add_tensor(name, values.to(dtype if values.dim() > 1 else torch.float32).numpy())
        finish(writer)

    write_atomically(out, fill)


def write(gguf, path: Path, architecture: str, alpha: float, tensors: dict) -> None:
    """Write adapter matrices by GGUF name, and LoRA's alpha, to the GGUF file `path`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, values in sorted(tensors.items()):
        writer.add_tensor(name, values)
    finish(writer)


def finish(writer) -> None:
    """Write the added metadata and tensors to the file, and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(name: str, matrix: torch.Tensor, config) -> torch.Tensor:
    """Reorder the rows of Llama's query and key matrices as in llama.cpp; return other weights unchanged.

    The rotary embedding pairs rows of a head's two halves; llama.cpp stores the rows of a pair next to each other.
    """
    kind = name.rpartition(".")[2]
    if config.model_type != "llama" or kind not in ("q_proj", "k_proj"):
        return matrix
    heads = config.num_attention_heads if kind == "q_proj" else config.num_key_value_heads
    return matrix.reshape(heads, 2, -1, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape).contiguous()


def require():
    """Import and return the package gguf. Raises StudyError if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise StudyError(MISSING) from None
    return gguf
