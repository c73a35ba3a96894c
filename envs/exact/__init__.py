"""Exact evaluation: NashConv, values and best responses of a policy, by whatever way suits the game.

`GameTree` keeps every history and solves small games, too; `exact_evaluator` picks a way that a larger game allows.
"""

from envs.exact.choice import exact_evaluator as exact_evaluator
from envs.exact.evaluation import Evaluation as Evaluation
from envs.exact.evaluation import ExactEvaluator as ExactEvaluator
from envs.exact.tree import GameTree as GameTree
from envs.expansion import GameTooLargeError as GameTooLargeError
