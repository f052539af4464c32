"""The contract of runners, kept by `threads`."""

from support.runner_contract import ConcurrentRunnerContract


class TestThreadsRunner(ConcurrentRunnerContract):
    runner = "threads"
