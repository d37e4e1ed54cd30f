"""`hunmin tune`, the command itself, from a file to a soft prompt that answers, and what it says where that fails."""

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from ways import ONE_PROCESS

HUNMIN = str(Path(sys.executable).with_name("hunmin"))
WORDS = {"1": ("정말 재미있다", "최고의 감동", "또 보고 싶다"), "0": ("너무 지루하다", "시간이 아깝다", "돈이 아깝다")}
ROWS = [(f"{WORDS[str(n % 2)][n % 3]} {n}번째로 본 영화", str(n % 2)) for n in range(80)]
TASK = ["--prompt", "{text}<|VIRTUAL_PROMPT_0|> 평가:", "--answer", "{label}", "--verbalizer", "1= 긍정", "0= 부정"]
FAST = ["--slots", "4", "--epochs", "1", "--batch-size", "8", "--shares", "6,1,3"]
LONG = ["--slots", "4", "--epochs", "1000", "--batch-size", "1", "--patience", "never"]
PATIENCE_S = 600  # on a busy machine

pytestmark = [
    pytest.mark.timeout(PATIENCE_S + 60),
    pytest.mark.parametrize("way", [ONE_PROCESS.name], indirect=True),  # a client sees the gateway alone
]


def table(rows: list[tuple[str, str]]) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text(table(ROWS), encoding="cp949")
    return path


@pytest.fixture
def environ(studio) -> dict[str, str]:
    return {
        "HUNMIN_API_KEY": studio.key,
        "HUNMIN_BASE_URL": studio.url,
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "PYTHONUTF8": "1",
    }


@pytest.fixture
def hunmin(environ) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end, where there is no terminal."""

    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HUNMIN, *map(str, arguments)],
            env=environ | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return run


def name() -> str:
    return f"tune-{secrets.token_hex(6)}"


def heed_ctrl_c() -> None:
    """Undo what a shell does to its background jobs, which a test run may be: they ignore SIGINT, and so do theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def job_in(output: str) -> str:
    return next(word for word in output.split() if word.startswith("job_"))


def test_a_file_becomes_a_soft_prompt_that_answers(hunmin, environ, reviews, studio):
    called = name()
    done = hunmin("tune", reviews, "--name", called, "--model", studio.model, *FAST, *TASK)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"{called}@1: 80 rows (48 train, 8 validation, 24 test)"
    assert "labels: 0 40, 1 40" in lines
    assert "running" in lines
    assert lines.index("running") < lines.index("succeeded")
    assert [line for line in lines if line.startswith("step 6 of 6: loss ")]
    assert [line for line in lines if line.startswith("step 6: validation loss ") and "accuracy" in line]
    ways = [line for line in lines if line.lstrip().startswith(("base, zero-shot", "base, few-shot", "tuned"))]
    assert all("%" in line for line in ways)
    assert len(ways) == 3
    assert f"{called}@1 is served. Ask it:" in lines
    assert "\x1b" not in done.stdout

    shown = done.stdout[done.stdout.index("curl ") :].replace("\\\n", " ")
    command = [part.replace("$HUNMIN_API_KEY", studio.key) for part in shlex.split(shown)]
    answer = json.loads(subprocess.run([*command, "--silent"], check=True, capture_output=True).stdout)
    assert answer["model"] == f"{called}@1"
    assert answer["usage"]["completion_tokens"] > 0

    job = job_in(done.stdout)
    again = hunmin("tune", "--follow", job)
    assert again.returncode == 0
    assert again.stdout.endswith(done.stdout[done.stdout.index("curl ") :])
    listed = hunmin("jobs", "list", "--state", "succeeded").stdout
    assert any(job in line and f"{called}@1" in line for line in listed.splitlines())
    assert "test rows" in hunmin("jobs", "show", job).stdout
    assert hunmin("jobs", "cancel", job).returncode == 1  # it has ended


def test_a_file_that_cannot_be_learned_from_starts_no_job(hunmin, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(table([*ROWS, ("", "1"), ("좋다", "긍정")]), encoding="utf-8")
    called = name()
    done = hunmin("tune", path, "--name", called, *FAST, *TASK)
    assert done.returncode == 3
    errors = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert [line[line.rindex("(") :] for line in errors] == ["(line 82)", "(line 83)"]
    assert "cannot be learned from" in done.stderr
    assert called not in hunmin("jobs", "list").stdout

    path.write_bytes(table(ROWS).encode() + b"\xff\xfe,1\n")
    done = hunmin("tune", path, "--name", called, *FAST, *TASK)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("hunmin: 400 invalid_request: ")
    assert "82" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "status", "said"),
    [
        (["tune", "nowhere.csv", "--name", "a", *TASK], {}, 1, "nowhere.csv"),
        (["tune", "nowhere.csv", "--name", "a"], {}, 2, "--verbalizer"),
        (["tune", "--dataset", "nothing@1", "--name", "a", *TASK], {}, 1, "404 not_found"),
        (["tune", "--follow", "job_none"], {}, 1, "404 not_found"),
        (["jobs", "list"], {"HUNMIN_API_KEY": "hm_wrong"}, 1, "401 unauthenticated"),
        (["jobs", "list"], {"HUNMIN_API_KEY": ""}, 1, "make key"),
        (["jobs", "list"], {"HUNMIN_BASE_URL": "http://127.0.0.1:1"}, 1, "did not answer"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(hunmin, arguments, changes, status, said):
    done = hunmin(*arguments, **changes)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interruption_without_a_terminal_leaves_the_job_alone(hunmin, environ, reviews, studio):
    called = name()
    started = hunmin("tune", reviews, "--name", called, "--model", studio.model, "--detach", *LONG, *TASK)
    assert started.returncode == 0, started.stderr
    job = job_in(started.stdout)
    following = subprocess.Popen(
        [HUNMIN, "tune", "--follow", job],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert following.stdout is not None
    for line in following.stdout:
        if line.startswith("running"):
            break
    following.send_signal(signal.SIGINT)
    output, errors = following.communicate(timeout=60)
    assert following.returncode == 130, errors
    assert output.endswith(f"hunmin tune --follow {job}\n")
    assert "running" in hunmin("jobs", "show", job).stdout
    assert hunmin("jobs", "cancel", job).returncode == 0
    ended = hunmin("tune", "--follow", job)
    assert (ended.returncode, f"{job} cancelled" in ended.stderr) == (4, True)


def test_ctrl_c_in_a_terminal_asks_and_cancels(hunmin, environ, reviews, studio):
    called = name()
    arguments = ["tune", str(reviews), "--name", called, "--model", studio.model, *LONG, *TASK]
    asks = "go on watching (Enter)?"
    terminal = pexpect.spawn(
        HUNMIN,
        arguments,
        env=environ | {"TERM": "xterm"},
        dimensions=(24, 160),
        encoding="utf-8",
        timeout=PATIENCE_S,
        preexec_fn=heed_ctrl_c,
    )
    terminal.expect(r"(job_\w+) learns")
    job = terminal.match.group(1)
    terminal.expect_exact(" loss ")
    terminal.sendcontrol("c")
    terminal.expect_exact(asks)
    terminal.sendline("")
    terminal.expect_exact(" loss ")
    terminal.sendcontrol("c")
    terminal.expect_exact(asks)
    terminal.sendline("c")
    terminal.expect_exact(f"{job} cancelled")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 130
    assert f"{job}: cancelled" in hunmin("jobs", "show", job).stdout
