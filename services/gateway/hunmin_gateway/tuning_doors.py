"""What the doors to tuning have in common that know neither template nor soft prompt: those two. Pure: no I/O."""

import re

from hunmin_contracts.datasets import COMPLETION, PROMPT
from hunmin_contracts.tuning import TuningTemplate

# Rows of a soft prompt, then the prompt as it is asked: the same text by completions and, rendered, by chat.
TEMPLATE = TuningTemplate(prompt=f"<|VIRTUAL_PROMPT_0|>{{{PROMPT}}}", answer=f"{{{COMPLETION}}}")
_MAX_NAME = 63


def name_like(text: str) -> str | None:
    """Return `text` in the letters that names of datasets and soft prompts have; None where none of them is left."""
    letters = re.sub(r"[^a-z0-9_-]+", "-", text.lower())
    return re.sub(r"^[^a-z]+", "", letters)[:_MAX_NAME].strip("-") or None
