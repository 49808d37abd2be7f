import pickle
import subprocess
import sys

import pytest

import bdclean
from bdclean.cli.flags import flag
from bdclean.errors import Given, InputError, naming, within


def test_an_error_uses_the_callers_name_of_its_parameter() -> None:
    def refused() -> InputError:
        with pytest.raises(InputError) as caught:
            within("data.num_unlabeled", -1, 1)
        return caught.value

    error = refused()
    assert (error.parameter, error.value, error.reason) == ("data.num_unlabeled", -1, "must be at least 1")
    assert str(error) == "num_unlabeled -1: must be at least 1"
    with naming(flag):
        error = refused()
        assert str(Given("trainer.strategy", "ddp")) == "--trainer.strategy ddp"
    assert str(error) == "--data.num_unlabeled -1: must be at least 1"
    # As from another process, which does not have the command line's names.
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.parameter) == (str(error), error.parameter)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("data.source", None, "needed"), "source: needed"),
        (InputError("output", "", "needs a name"), "output '': needs a name"),
        (InputError("", None, "no command"), "no command"),
        (InputError("method.lr", 0, "too low", Given("method.momentum", -1)), "lr 0 momentum -1: too low"),
    ],
)
def test_lines_of_errors(error: InputError, line: str) -> None:
    assert str(error) == line


@pytest.mark.parametrize(
    ("value", "low", "high", "above", "reason"),
    [
        (0, 1, float("inf"), False, "must be at least 1"),
        (0, 0, 1, True, "must be above 0 and at most 1"),
        (2, 0, 1, False, "must be at least 0 and at most 1"),
        (float("nan"), 0, 1, False, "must be at least 0 and at most 1"),
        (float("inf"), 0, float("inf"), False, "must be at least 0"),
        (2**64, 0, 2**63 - 1, False, f"must be at least 0 and at most {2**63 - 1}"),
    ],
)
def test_ranges(value: float, low: float, high: float, above: bool, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        within("x", value, low, high, above)
    assert caught.value.reason == reason


def test_errors_import_fast() -> None:
    assert bdclean.InputError is InputError
    code = "import sys, bdclean; bdclean.InputError; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
