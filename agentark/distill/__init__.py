"""Distillation in rising depth: `sft` on answers and traces, `prm` a process reward model, `policy` GRPO against it."""
