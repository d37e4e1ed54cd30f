"""TGI's clients, unmodified, in both ways to run: `huggingface_hub`'s InferenceClient, and `text-generation`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError
from studio_process import REPOSITORY

PROMPT = "이 영화는"
UV = shutil.which("uv", path=os.pathsep.join([str(REPOSITORY / ".uv" / "bin"), os.environ["PATH"]]))


@pytest.fixture
def client(studio):
    """The client, before the studio's default model."""
    with InferenceClient(model=studio.url, token=studio.key, timeout=60) as client:
        yield client


def test_generates_what_the_openai_dialect_completes(studio, client):
    with studio.client() as openai:
        expected = openai.completions.create(model=studio.model, prompt=PROMPT, max_tokens=6, temperature=0)
    for url in (studio.url, f"{studio.url}/generate", f"{studio.url}/models/{studio.model}"):
        assert client.text_generation(PROMPT, model=url, max_new_tokens=6) == expected.choices[0].text
    rows = studio.usage()[:3]
    assert [row["endpoint"] for row in rows] == ["/", "/generate", "/"]
    assert {(row["prompt_tokens"], row["completion_tokens"]) for row in rows} == {
        (expected.usage.prompt_tokens, expected.usage.completion_tokens)
    }


def test_details_tell_every_token(client):
    answer = client.text_generation(PROMPT, max_new_tokens=6, details=True, decoder_input_details=True, top_n_tokens=3)
    details = answer.details
    assert len(details.tokens) == len(details.top_tokens) == details.generated_tokens
    assert "".join(token.text for token in details.tokens if not token.special) == answer.generated_text
    assert details.prefill[0].logprob is None
    for token, tops in zip(details.tokens, details.top_tokens, strict=True):
        # Greedy: what was chosen is what was likeliest.
        assert (token.id, token.logprob) == (
            tops[0]["id"],
            pytest.approx(tops[0]["logprob"]),
        )  # the client leaves these dicts


def test_a_stream_is_the_whole_answer_token_by_token(client):
    whole = client.text_generation(PROMPT, max_new_tokens=6, details=True)
    pieces = list(client.text_generation(PROMPT, max_new_tokens=6, details=True, stream=True))
    assert [piece.token.id for piece in pieces] == [token.id for token in whole.details.tokens]
    assert [piece.token.text for piece in pieces] == [token.text for token in whole.details.tokens]
    assert pieces[-1].generated_text == whole.generated_text
    assert pieces[-1].details.generated_tokens == len(pieces)


def test_a_seed_repeats(client):
    asked = {"max_new_tokens": 12, "do_sample": True, "seed": 7, "temperature": 1.2}
    assert client.text_generation(PROMPT, **asked) == client.text_generation(PROMPT, **asked)


def test_what_is_not_served_is_refused_by_name(client):
    with pytest.raises(ValidationError, match="truncate"):
        client.text_generation(PROMPT, truncate=3)


@pytest.mark.skipif(UV is None, reason="needs uv: make setup puts it into .uv")
def test_text_generation_client(studio):
    script = Path(__file__).with_name("text_generation_client.py")
    command = [UV, "run", "--quiet", "--python", sys.executable, "--script", script, studio.url, studio.key]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, pieces = found["whole"], found["pieces"]
    assert "".join(piece["token"]["text"] for piece in pieces if not piece["token"]["special"])
    assert pieces[-1]["generated_text"] == whole["generated_text"] == found["async"]["whole"]
    assert len(pieces) == whole["details"]["generated_tokens"] == len(whole["details"]["tokens"])
    assert found["async"]["pieces"] == [piece["token"]["text"] for piece in pieces]
    assert whole["details"]["prefill"][0]["logprob"] is None
    assert found["sampled"]
    assert found["refused"].startswith("ValidationError: Parameter parameters.typical_p")
    assert found["unauthenticated"].startswith("UnknownError: ")
