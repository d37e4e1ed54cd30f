"""What `hunmin` makes of its arguments, with the subcommands that this repository installs."""

import pytest
from hunmin_command import main


def test_help_lists_every_subcommand(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in ("migrate", "run"))


@pytest.mark.parametrize("arguments", [[], ["fly"], ["migrate", "--fast"]])
def test_what_is_no_subcommand_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: hunmin" in capsys.readouterr().err
