"""Exact evaluation: NashConv, values and best responses of a policy, by whatever way suits the game.

`GameTree` keeps every history; `exact_evaluator` picks a way that a larger game allows.
"""

from envs.exact.evaluation import Evaluation as Evaluation
from envs.exact.tree import GameTooLargeError as GameTooLargeError
from envs.exact.tree import GameTree as GameTree
