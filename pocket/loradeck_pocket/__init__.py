"""The pocket base, the data that the project made itself, and two samples. Only paths: nothing is loaded here."""

from pathlib import Path

_ROOT = Path(__file__).parent
BASE = _ROOT / "base"
"""Folder of the pocket base: Qwen2 architecture, safetensors, tokenizer, chat template."""
CLASSIFICATION = _ROOT / "data" / "classification"
"""Folder with train.jsonl and test.jsonl: columns `text`, `label`."""
QUESTION_ANSWERING = _ROOT / "data" / "qa"
"""Folder with train.jsonl and test.jsonl: columns `context`, `question`, `short_answer`, `long_answer`."""
ARITHMETIC = _ROOT / "data" / "arithmetic"
"""Folder with train.jsonl and test.jsonl: columns `question`, `answer`."""
INSTRUCTIONS = _ROOT / "data" / "instructions"
"""Folder with train.jsonl, test.jsonl and math.jsonl: columns `instruction`, `output`, `category`."""
MEANINGS = _ROOT / "data" / "meanings"
"""Folder with train.jsonl and test.jsonl: columns `sentence`, `meaning`."""
GSM8K = _ROOT / "data" / "gsm8k"
"""A sample of GSM8K (MIT): folder with train.jsonl and test.jsonl: columns `question`, `answer`."""
WIKISQL = _ROOT / "data" / "wikisql"
"""A sample of WikiSQL (BSD 3-Clause): folder with train.jsonl and test.jsonl: columns `question`, `sql`."""
