"""Functions common to all trainings: trainable models, trainer arguments, division of a batch among processes."""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from agentark import Stopped, StudyError, deadline, first_line
from agentark.distill import launch
from agentark.distill.launch import route
from agentark.distill.settings import Settings
from agentark.distill.students import Origin
from agentark.models import loading
from agentark.parallel import tick


class ByLength(LengthGroupedSampler):
    """A sampler that groups similar lengths. Its order depends only on the seed and the epoch, so a training that
    continues from a checkpoint has the same order."""

    def __init__(self, *arguments, seed: int, **named):
        super().__init__(*arguments, **named)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)


class WholeBatches(SFTTrainer):
    """SFTTrainer that groups similar lengths over the complete batch of a step, not over one process's share.

    A step then has the same examples for every division of the batch.
    """

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return ByLength(size, dataset=self.train_dataset, model_input_name="input_ids", seed=self.args.seed)


class StepTrainer(Trainer):
    """A Trainer whose loss gets the complete batch: `step_loss(outputs, batch, num_items_in_batch)`. Only the loss gets
    the batch's `prompts`, not the model."""

    def __init__(self, *arguments, step_loss, **named):
        super().__init__(*arguments, compute_loss_func=self._loss, **named)
        self.step_loss = step_loss

    def compute_loss(self, model, inputs, *arguments, **named):
        self.batch = inputs
        return super().compute_loss(model, {k: v for k, v in inputs.items() if k != "prompts"}, *arguments, **named)

    def _loss(self, outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        return self.step_loss(outputs, self.batch, num_items_in_batch)


def trainable(
    base: Path, seed: int, chosen: Settings, generates: bool = False, dtype: torch.dtype | None = None
) -> tuple[loading.Model, PreTrainedTokenizerFast]:
    """Load `base` with a trainable language half, and its tokenizer. Other parts (a vision tower) are frozen.

    lora_rank 0: all weights are trained in 32 bits (a GPU computes in 16 bits, but 16-bit weights would lose small
    updates to rounding). Otherwise LoRA on all linear layers, alpha = 2 r, no dropout. The base weights have 16 bits on
    a GPU, or 4 bits with `four_bit`. generates: vLLM generates during the training, and Unsloth shares the weights with
    it. dtype: of the base weights with LoRA; None for `loading.precision`.
    """
    if route(chosen)[0]:
        return with_unsloth(base, seed, chosen, generates)
    if chosen.lora_rank == 0:
        model, tokenizer = loading.load(base, torch.float32)
        freeze_vision(model)
        return model, tokenizer
    options: dict[str, Any] = {}
    if chosen.four_bit:  # NF4 with doubly quantised constants: QLoRA, arXiv 2305.14314, section 3
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        options["device_map"] = {"": torch.cuda.current_device()}
    model, tokenizer = loading.load(base, dtype, **options)
    if chosen.four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the trainer enables it
    return with_lora(model, seed, chosen.lora_rank, task_type="CAUSAL_LM"), tokenizer


def freeze_vision(model: PreTrainedModel) -> None:
    """Freeze all parameters outside the language half."""
    language = {id(p) for part in (model.get_decoder(), model.get_output_embeddings()) for p in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) in language


def linear_layers(model: PreTrainedModel) -> list[str] | str:
    """Return the linear layers of the language half: the last part of each name, or a regular expression for full names
    if other parts of the model have layers of the same names."""
    decoder = model.get_decoder()
    names = sorted({n.rpartition(".")[2] for n, m in decoder.named_modules() if isinstance(m, torch.nn.Linear)})
    (prefix,) = (name for name, module in model.named_modules() if module is decoder)
    elsewhere = {n.rpartition(".")[2] for n, _ in model.named_modules() if not n.startswith(f"{prefix}.")}
    return rf"{prefix}\..*\.({'|'.join(names)})" if elsewhere & set(names) else names


def with_lora(model: PreTrainedModel, seed: int, rank: int, **options: Any) -> loading.Model:
    """Wrap the model in LoRA by PEFT. `options` are further arguments of LoraConfig."""
    torch.manual_seed(seed)
    layers = linear_layers(model)
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers, **options)
    )


def with_unsloth(
    base: Path, seed: int, chosen: Settings, generates: bool
) -> tuple[loading.Model, PreTrainedTokenizerFast]:
    """Return the model with the same LoRA adapter, with Unsloth's kernels. Only the language half gets the adapter.

    Raises StudyError if Unsloth cannot be imported.
    """
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    try:
        from unsloth import FastLanguageModel as unsloth
    except (ImportError, NotImplementedError) as error:  # NotImplementedError: unsupported GPU
        raise StudyError(f"trainer unsloth: {first_line(error)}; set trainer to auto") from error
    tokenizer = loading.load_tokenizer(base)
    model, _ = unsloth.from_pretrained(
        str(base),
        max_seq_length=loading.window(base),
        dtype=torch.bfloat16,
        load_in_4bit=chosen.four_bit,
        use_exact_model_name=True,  # this checkpoint instead of Unsloth's copy
        fast_inference=generates,
        max_lora_rank=chosen.lora_rank,
        random_state=seed,
    )
    layers = linear_layers(model)
    model = unsloth.get_peft_model(
        model,
        r=chosen.lora_rank,
        lora_alpha=2 * chosen.lora_rank,
        lora_dropout=0.0,
        target_modules=layers,
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )
    return model, tokenizer


def arguments(
    chosen: Settings, seed: int, examples: int, label: str = "", checkpoints: Path | None = None
) -> dict[str, Any]:
    """Trainer arguments common to all trainings, for `examples` examples per step; see `batch_arguments`.

    label: the run's name for the tracker of `report_to`. checkpoints: the folder for checkpoints every `save_steps`
    steps; None: no checkpoints. Gradient checkpointing saves memory by recomputing activations, which tiny models on a
    CPU do not need.
    """
    gpu = torch.cuda.is_available()
    return {
        **batch_arguments(examples, chosen.per_device_batch_size),
        "output_dir": str(checkpoints or "unused"),  # required, but not written without checkpoints
        **({"save_strategy": "steps", "save_steps": chosen.save_steps} if checkpoints else {"save_strategy": "no"}),
        "save_total_limit": 1,
        "report_to": chosen.report_to,
        "run_name": label or None,
        "disable_tqdm": True,
        "gradient_checkpointing": gpu,
        "bf16": gpu or chosen.bf16,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "seed": seed,
        "learning_rate": chosen.learning_rate,
        "lr_scheduler_type": "linear",
    }


def batch_arguments(examples: int, at_once: int) -> dict[str, int]:
    """Trainer arguments for `examples` examples per step with any number of processes.

    Each process handles its share, `at_once` examples at a time (0: all at once), and accumulates gradients. Raises
    StudyError if the examples do not divide evenly.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share = at_once or examples // processes
    if share < 1 or examples % (processes * share):
        shares = f"{processes} process(es), {at_once} at a time" if at_once else f"{processes} processes"
        raise StudyError(
            f"batch_size: {examples} examples do not divide among {shares}; change batch_size, processes or "
            "per_device_batch_size"
        )
    return {"per_device_train_batch_size": share, "gradient_accumulation_steps": examples // (processes * share)}


def checkpoints_of(origin: Origin, chosen: Settings) -> Path | None:
    """Return the folder for a training's checkpoints; None without `save_steps`. `launch.run_all` deletes it after all
    its trainings have finished, so that a finished training is not repeated if another one is killed."""
    return launch.checkpoints_of(origin.provenance()) if chosen.save_steps else None


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the last complete checkpoint. Only complete ones have trainer_state.json, which a trainer writes last."""
    complete = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


def run(trainer, checkpoints: Path | None = None) -> None:
    """Train with a progress bar, from the last of the `checkpoints` if there is one. The learning curve replaces the
    printed log. If the run has to stop, raises Stopped after a step, with a checkpoint of that step."""
    deadline.check()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Ticks(trainer))
    last = last_checkpoint(checkpoints) if checkpoints else None
    if last:
        state = TrainerState.load_from_json(os.path.join(last, "trainer_state.json"))
        print(f"training continues after step {state.global_step}, from a checkpoint", flush=True)
        if state.global_step >= trainer.args.max_steps:  # finished; trainer.train would add a step
            trainer._load_from_checkpoint(state.best_model_checkpoint or last)
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=last)


def gathered_model(trainer: Trainer, base: Path, seed: int, chosen: Settings) -> loading.Model:
    """Return the trained model. If its weights are divided among processes, all processes must call this function: the
    first one gets a model with all weights, the others get their own part."""
    if not trainer.accelerator.is_fsdp2:
        return trainer.model
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if os.environ.get("RANK", "0") != "0":
        return trainer.model
    model, _ = trainable(base, seed, chosen)
    model.load_state_dict(weights)
    return model


class Ticks(TrainerCallback):
    """After every optimiser step, advance the progress bar (in the first process) and stop if the run has to stop. The
    last step is logged, so that the learning curve ends with the last step.

    A checkpoint also stores the values not logged yet, so that the learning curve does not depend on interruptions.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.stops = False

    def on_train_begin(self, arguments, state, control, **_) -> None:
        if state.is_world_process_zero:
            tick(state.global_step)  # steps before a checkpoint
        file = self.unlogged()
        if file.is_file():
            loss, logged, metrics = torch.load(file, weights_only=False)
            self.trainer._tr_loss += loss.to(self.trainer._tr_loss.device)
            self.trainer._globalstep_last_logged = logged
            getattr(self.trainer, "_metrics", {}).update(metrics)

    def on_step_end(self, arguments, state, control, **_) -> None:
        if state.is_world_process_zero:
            tick()
        control.should_log |= control.should_training_stop
        # The first process decides for all, since every process must take part in a step.
        self.stops = state.global_step < state.max_steps and broadcast_object_list([deadline.left() <= 0])[0]
        if self.stops and (arguments.save_strategy == "no" or arguments.save_only_model):
            raise Stopped("a training without checkpoints starts again (save_steps keeps some)")
        control.should_save |= self.stops

    def on_save(self, arguments, state, control, **_) -> None:
        metrics = getattr(self.trainer, "_metrics", {})
        torch.save((self.trainer._tr_loss, self.trainer._globalstep_last_logged, metrics), self.unlogged())
        if self.stops:
            raise Stopped(f"a checkpoint of step {state.global_step} is kept")

    def unlogged(self) -> Path:
        """Return the file for this process's unlogged values in the current step's checkpoint."""
        arguments, step = self.trainer.args, self.trainer.state.global_step
        return Path(arguments.output_dir) / f"checkpoint-{step}" / f"unlogged-{arguments.process_index}.pt"


def curve(history: list[dict], *keys: str) -> list[dict]:
    """Return the learning curve from a trainer's log: step and `keys` of every entry that has all of them."""
    return [{"step": h["step"], **{k: float(h[k]) for k in keys}} for h in history if all(k in h for k in keys)]
