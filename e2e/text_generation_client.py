# /// script
# requires-python = ">=3.11"
# dependencies = ["text-generation==0.7.0"]
# ///
"""TGI's own Python client, unmodified, in an environment of its own: it wants a huggingface-hub older than the lock's.

`uv run --script text_generation_client.py URL KEY` prints what it got, as JSON. Run by test_tgi_client.py.
"""

import asyncio
import json
import sys
from typing import Any

from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError

PROMPT = "이 영화는"


def main(url: str, key: str) -> None:
    """Generate and stream, twice: the client that waits and the one that does not."""
    headers = {"Authorization": f"Bearer {key}"}
    client = Client(url, headers=headers, timeout=60)
    whole = client.generate(PROMPT, max_new_tokens=6, decoder_input_details=True, top_n_tokens=2)
    pieces = list(client.generate_stream(PROMPT, max_new_tokens=6))
    found: dict[str, Any] = {
        "whole": whole.model_dump(mode="json"),
        "pieces": [piece.model_dump(mode="json") for piece in pieces],
        "sampled": client.generate(PROMPT, max_new_tokens=6, do_sample=True, seed=7, temperature=0.9).generated_text,
        "refused": refusal(client),
        "unauthenticated": refusal(Client(url, timeout=60)),
        "async": asyncio.run(asynchronous(url, headers)),
    }
    json.dump(found, sys.stdout)


def refusal(client: Client) -> str:
    """Return the name of the error that a parameter which is not served brings."""
    try:
        client.generate(PROMPT, typical_p=0.5)
    except ValidationError as error:
        return f"ValidationError: {error}"
    except Exception as error:  # whichever it is, its name is the result
        return f"{type(error).__name__}: {error}"
    return "none"


async def asynchronous(url: str, headers: dict[str, str]) -> dict[str, Any]:
    """Generate and stream."""
    client = AsyncClient(url, headers=headers, timeout=60)
    whole = await client.generate(PROMPT, max_new_tokens=6)
    texts = [piece.token.text async for piece in client.generate_stream(PROMPT, max_new_tokens=6)]
    return {"whole": whole.generated_text, "pieces": texts}


if __name__ == "__main__":
    main(*sys.argv[1:])
