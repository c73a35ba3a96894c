"""Evaluations done beside training: of a copy of the exported policy, in a thread of their own.

What is measured is a policy as it was when the thread began, `decisions` ago; `lit_rl.evaluation` says what, and
`callbacks.validations` when. Numba's kernels and torch's operations let go of Python's lock, so that training goes on.
"""

import copy
import threading
from collections.abc import Mapping, Sequence

from torch import nn

from lit_rl.evaluation import Evaluation


class GivenUp(BaseException):
    """Nobody waits for the measurement any more. (No Exception: no evaluation takes it for an error of its own.)"""


class Measurement:
    """The thread, begun at once.

    Args:
        jobs: evaluations, opened.
        policy: is copied; nothing that is learned from here on reaches the copy.
        decisions: made when the policy was as it is.
    """

    def __init__(self, jobs: Sequence[Evaluation], policy: nn.Module, decisions: int):
        self.jobs, self.decisions = list(jobs), decisions
        self._policy = copy.deepcopy(policy).requires_grad_(False)
        self._policy.register_forward_pre_hook(self._go_on)
        self._answers: list[Answered] = []
        self._error: BaseException | None = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="measurement")
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def answers(self) -> list["Answered"]:
        """What was measured, a job each; waits for it. Raises what an evaluation has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answers

    def give_up(self) -> None:
        """Ask the thread to end, without waiting: it does so when it asks the policy again, or has nothing to do."""
        self._given_up.set()

    def _go_on(self, *arguments) -> None:
        if self._given_up.is_set():
            raise GivenUp

    def _measure(self) -> None:
        try:
            self._answers = [Answered(job, job(self._policy), self.decisions) for job in self.jobs]
        except BaseException as error:  # handed to whoever waits
            self._error = error


class Answered(Evaluation):
    """A job that was done beside training: whatever policy it is called with, it says what was measured of the copy."""

    def __init__(self, job: Evaluation, metrics: Mapping[str, float], decisions: int):
        self.headline, self.label, self.short, self.logarithmic = job.headline, job.label, job.short, job.logarithmic
        self.seconds, self.decisions = dict(job.seconds), decisions
        self._metrics = dict(metrics) | {"eval/decisions": float(decisions)}

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        return self._metrics
