"""What all trainings share: trainer settings that suit a small machine, LoRA or full weights, and saving."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback


def settings(seed: int) -> dict:
    """Trainer arguments of every stage. Gradient checkpointing, TRL's default, recomputes every activation to save
    memory, which models of this size do not need; bf16 is for GPUs."""
    gpu = torch.cuda.is_available()
    return {
        "output_dir": "unused",  # nothing is written there: no checkpoints, no trackers
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": gpu,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "seed": seed,
    }


def with_lora(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """The model itself when `rank` is 0 (full fine-tuning), else wrapped in LoRA on all linear layers (alpha = 2 r)."""
    if rank == 0:
        return model
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save in the hub's format; an adapter is merged, so that any engine loads the student as a plain model."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(trainer) -> None:
    """Train in silence: what a reader wants of the log is in the learning curve."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def curve(history: list[dict], *keys: str) -> list[dict]:
    """The learning curve from a trainer's log: one row a logged step with those of `keys` that it holds."""
    return [{"step": h["step"], **{k: float(h[k]) for k in keys}} for h in history if all(k in h for k in keys)]
