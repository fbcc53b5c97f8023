"""Training: recipes, data, LoRA and full fine-tuning, publishing."""

import logging
import os

# It tells every process that imports PEFT which optional package would speed its CPU kernels up.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# oneDNN keeps the code that it makes for a matrix product of each shape: 1,024 of more than a MiB each. A step needs
# some sixty, and batches of other lengths need others, so that most are never used again. Read at the first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
