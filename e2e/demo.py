"""`make demo`: three completions of `이 영화는` by the starter model, by the official client through a gateway."""

import tempfile
from pathlib import Path

import openai
from studio_process import STARTER, StudioProcess, model_environ, new_key, studio_process

PROMPT = "이 영화는"


def main() -> None:
    """Start a studio in a temporary home, complete the prompt three times, and end it."""
    with tempfile.TemporaryDirectory(prefix="hunmin-demo-") as home:
        process = StudioProcess(Path(home), new_key(), one_process=True, environ=model_environ(STARTER))
        with (
            studio_process(process),
            openai.OpenAI(base_url=f"{process.url}/v1", api_key=process.key) as client,
        ):
            completion = client.completions.create(
                model=process.model, prompt=PROMPT, n=3, max_tokens=48, temperature=0.8, top_p=0.95, seed=1, echo=True
            )
    for choice in completion.choices:
        print(f"· {choice.text.strip()}")


if __name__ == "__main__":
    main()
