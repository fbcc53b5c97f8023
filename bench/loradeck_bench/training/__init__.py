"""Training measured: speed, memory and loss against a plain Trainer, LoRA against full, over time."""
