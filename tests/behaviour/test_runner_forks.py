"""The contract of runners, kept by `forks`."""

import pytest

from support.runner_contract import ConcurrentRunnerContract


@pytest.mark.filterwarnings("ignore:runner 'forks' in a process with other threads:RuntimeWarning")
class TestForksRunner(ConcurrentRunnerContract):
    runner = "forks"
