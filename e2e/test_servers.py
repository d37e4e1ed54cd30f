"""`e2e/servers/run.py`: servers are there as long as the command runs, whatever ends it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers.java import missing_tools

RUN = [sys.executable, str(Path(__file__).parent / "servers" / "run.py")]
OTHERS = {"TEST_KAFKA": "127.0.0.1:1", "TEST_KEYCLOAK": "http://127.0.0.1:1"}  # named, so that none is started
needs_java = pytest.mark.skipif(bool(missing_tools()), reason=f"needs {', '.join(missing_tools())} to start a server")
# Tells where its server is and whether it is there, and ends by Ctrl-C alone.
WAITING = """
import os, time
try:
    print(os.environ["TEST_S3"], flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("tidied")
    raise SystemExit(7)
"""


def environ(**changes: str) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TEST_")}
    return outside | OTHERS | changes


def is_open(url: str) -> bool:
    server = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((server.hostname, server.port)) == 0


@needs_java
def test_a_server_ends_with_the_command_whose_exit_code_it_is():
    ended = subprocess.run([*RUN, "sh", "-c", 'echo "$TEST_S3"; exit 3'], env=environ(), capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert not is_open(ended.stdout.splitlines()[-1])


@needs_java
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "hung-up"])
def test_a_signal_ends_the_command_as_ctrl_c_does_and_then_the_server(number):
    command = [*RUN, sys.executable, "-c", WAITING]
    with subprocess.Popen(command, env=environ(), stdout=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().strip()
        assert is_open(url)
        running.send_signal(number)
        assert running.stdout.read() == "tidied\n"
    assert running.returncode == 7
    assert not is_open(url)


def test_without_java_it_says_so_and_runs_the_command(tmp_path):
    command = [*RUN, sys.executable, "-c", "import os; print(os.environ.get('TEST_S3'))"]
    ended = subprocess.run(command, env=environ(PATH=str(tmp_path)), capture_output=True, text=True)
    said, found = ended.stdout.splitlines()
    assert "without java and mvn none is started for TEST_S3" in said
    assert found == "None"


def test_what_maven_cannot_bring_is_told_and_the_command_runs(tmp_path):
    for tool in ("java", "mvn"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / tool).chmod(0o755)
    variables = environ(PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path))
    ended = subprocess.run([*RUN, "sh", "-c", 'echo "found $TEST_S3"'], env=variables, capture_output=True, text=True)
    said, found = ended.stdout.splitlines()
    assert "mvn ended with 3: none is started for TEST_S3" in said
    assert (found, ended.returncode) == ("found ", 0)


def test_a_server_that_is_named_is_used():
    command = [*RUN, "sh", "-c", 'echo "$TEST_S3"']
    ended = subprocess.run(command, env=environ(TEST_S3="http://a:b@c:1/d"), capture_output=True, text=True)
    assert ended.stdout == "http://a:b@c:1/d\n"
