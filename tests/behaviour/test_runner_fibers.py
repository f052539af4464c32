"""The contract of runners, kept by `fibers`."""

from support.runner_contract import ConcurrentRunnerContract


class TestFibersRunner(ConcurrentRunnerContract):
    runner = "fibers"
