"""The contract of runners, kept by `inline`."""

from support.runner_contract import RunnerContract


class TestInlineRunner(RunnerContract):
    runner = "inline"
