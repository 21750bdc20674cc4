"""In: a model's folder, its name on the hub, or a GGUF file. Out: weights, tokenizer, digest, chats as token ids."""

from pathlib import Path

RAY = "ray:"  # before any engine's name: on a Ray cluster


def without_ray(name: str | Path) -> str:
    """An engine's name without `ray:`: what runs on one machine, or on each machine of a cluster."""
    return str(name).removeprefix(RAY)
