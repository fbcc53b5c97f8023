"""Training: recipes, data, LoRA and full fine-tuning, publishing."""

import logging

# It tells every process that imports PEFT which optional package would speed its CPU kernels up.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
