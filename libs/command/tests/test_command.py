"""What `hunmin` makes of its arguments, with the subcommands that this repository installs."""

import subprocess
import sys

import pytest
from hunmin_command import main


def test_help_lists_every_subcommand(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in ("jobs", "migrate", "run", "tune"))


@pytest.mark.parametrize("arguments", [[], ["fly"], ["migrate", "--fast"]])
def test_what_is_no_subcommand_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: hunmin" in capsys.readouterr().err


def test_a_subcommand_of_the_client_loads_neither_torch_nor_a_server():
    program = (
        "import sys\nfrom hunmin_command import main\ntry: main(['tune', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'fastapi', 'sqlalchemy', 'hunmin_kit'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "--verbalizer" in done.stdout
