"""What is measured of the policy that an algorithm exports: a list of jobs, named by class path in `data.evaluation`.

`Exact` knows every infostate; `Matches` plays against opponents, in games of any size. The same list serves fit,
validate and test, the best checkpoint (`ModelCheckpoint(monitor=...)`), summary.json and the learning curve, whose
first job is the headline. Letters: N rows, A actions, R infostates, G games.
"""

import difflib
import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from envs.env import RulesError
from envs.exact import ExactEvaluator, GameTooLargeError, GameTree, exact_evaluator
from envs.exact.evaluation import CHUNK, Policy, all_rows
from envs.exact.evaluation import Evaluation as ExactEvaluation
from envs.game import Game, Interface
from envs.rng import derive_key
from lit_rl.league.match import MakeEnv, Match, match_players
from lit_rl.league.matrix import draw_win_rates
from lit_rl.league.players import NetworkPlayer, Player, load_player, name_of, names_a_file, path_and_arguments
from lit_rl.league.ratings import expected_score
from lit_rl.policy import state_shape_of
from lit_rl.run.allowed import trust
from lit_rl.run.errors import ConfigError, check_ranges

EVALUATION_STREAM = 13
SAMPLED, GREEDY = "sampled", "greedy"
MEASURES: dict[str, Callable[[Match], float]] = {"win_rate": Match.win_rate.fget, "return": Match.mean_return.fget}
SOLVED = 100_000  # histories: CFR+ solves no larger games here, which would take longer than seconds
SLOW = 100_000  # infostates: asking a network of so many takes about a second
LONGEST_TABLE = 1_000_000  # infostates of a policy that is written down: policy.csv, a best response as a player


class Evaluation:
    """One job: the type that evaluations subclass. Built from YAML, opened once, then called with policies.

    Attributes:
        headline: the metric that says most, as it is logged.
        label: the same in words, with its unit; `short` in one word.
        logarithmic: how the learning curve shows it.
        slow: one call takes seconds: in a fit it is done beside training, see `callbacks.validations`.
        seconds: of the last call, by what took them.
        decisions: made when the policy was as it was measured; None: it is the policy as it is now.
    """

    headline = label = short = ""
    logarithmic = False
    slow = False
    seconds: Mapping[str, float] = {}
    decisions: int | None = None

    def open(self, game: Interface, seed: int, make_env: MakeEnv) -> None:
        """Prepare for this game, before the first call; `seed` is of all randomness in here, `make_env` makes envs.

        Raises:
            ConfigError: it cannot be measured of this game.
        """
        raise TypeError(f"{type(self).__name__} does not define open(game, seed, make_env)")

    def metrics(self, game: Interface) -> set[str] | None:
        """The names that `__call__` will return for this game, before anything is opened; None: not known yet."""
        return None

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        """eval/<name>: what is measured of a policy, (obs, legal) -> PolicyOutput; its mode and place stay."""
        raise TypeError(f"{type(self).__name__} does not define __call__(policy)")

    def lines(self, metrics: Mapping[str, float]) -> list[str]:
        """What a run prints at its end."""
        return [f"{name:30} {value:.6f}" for name, value in metrics.items()]

    def summary(self, metrics: Mapping[str, float]) -> dict:
        """What summary.json says."""
        return {name.removeprefix("eval/"): value for name, value in metrics.items()}

    def draw(self, title: str, path: Path) -> bool:
        """Draw what the last call found as PNG, which a run keeps; False: there is no picture of it."""
        return False

    def yardsticks(self) -> dict[str, float]:
        """Values of `headline` to compare with, by their name in the picture."""
        return {}


class Exact(Evaluation):
    """NashConv of all infostates: `eval/nash_conv`, `eval/exploitability` and each player's expected return.

    NashConv is in reward units: a game of two that pays the difference of points has twice that of OpenSpiel's
    Goofspiel (point_difference), which pays points minus their mean.

    Args:
        max_nodes: games of at most so many histories are kept as a tree, which exact opponents and tables need.
        max_seconds: refuse games that take longer to prepare or to evaluate, without what the policy takes.
        max_bytes: refuse games that need more memory.

    Attributes:
        evaluator: evaluates this game, once opened.
        tree: the same, where it is a tree; else None.
        seconds: of the last call: `forward`, the policy's own, and `sums`.
    """

    headline, label, short = "eval/nash_conv", "NashConv (reward units per game)", "NashConv"
    logarithmic = True

    def __init__(
        self, max_nodes: PositiveInt = 2_000_000, max_seconds: PositiveFloat = 60.0, max_bytes: PositiveInt = 4 << 30
    ):
        check_ranges(Exact.__init__, locals())
        self.max_nodes, self.max_seconds, self.max_bytes = int(max_nodes), float(max_seconds), int(max_bytes)
        self.evaluator: ExactEvaluator | None = None
        self.tree: GameTree | None = None
        self._uniform: ExactEvaluation | None = None

    @property
    def slow(self) -> bool:
        return self.evaluator is not None and self.evaluator.num_rows >= SLOW

    def open(self, game: Interface, seed: int, make_env: MakeEnv) -> None:
        if self.evaluator is not None:
            return
        self._one_at_a_time = threading.Lock()  # evaluators keep what they work on
        if not isinstance(game, Game):
            raise ConfigError(f"data.evaluation: {game.name} has no rules here to be enumerated; use Matches")
        try:
            with suppress(GameTooLargeError):
                self.evaluator = self.tree = GameTree(game, self.max_nodes)
                return
            self.evaluator = exact_evaluator(game, self.max_seconds, self.max_bytes)
        except GameTooLargeError as error:
            raise ConfigError(
                f"data.evaluation: {error}; raise max_seconds or max_bytes of Exact, or measure by "
                "lit_rl.evaluation.Matches"
            ) from None
        except RulesError as error:
            raise ConfigError(f"data.game: {error}") from None

    def metrics(self, game: Interface) -> set[str]:
        return {self.headline, "eval/exploitability"} | {f"eval/return_player_{p}" for p in range(game.num_players)}

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        """Raises FloatingPointError where NashConv is one that no policy of this game can have."""
        with self._one_at_a_time:
            began = time.perf_counter()
            answers, evaluator = _answers(policy, self.evaluator), evaluator_for(policy, self.evaluator)
            forward = time.perf_counter() - began
            ask = _Timed(answers) if callable(answers) else answers
            metrics = exact_metrics(ask, evaluator)
            forward += ask.seconds if callable(answers) else 0.0
            self.seconds = {"forward": forward, "sums": time.perf_counter() - began - forward}
        return metrics

    def best_actions(self, policy: nn.Module) -> np.ndarray:
        """[R] int16 in `evaluator_for` the policy: see `envs.exact.evaluation.ExactEvaluator.best_actions`."""
        with self._one_at_a_time:
            return evaluator_for(policy, self.evaluator).best_actions(_answers(policy, self.evaluator))

    def uniform(self) -> ExactEvaluation:
        """What the uniform policy is worth; evaluated once."""
        if self._uniform is None:
            with self._one_at_a_time:
                self._uniform = self.evaluator.evaluate(uniform_policy)
        return self._uniform

    def lines(self, metrics: Mapping[str, float]) -> list[str]:
        uniform = self.uniform()
        return [
            f"NashConv        {metrics['eval/nash_conv']:.6f}   (uniform policy {uniform.nash_conv:.6f})",
            f"exploitability  {metrics['eval/exploitability']:.6f}   (uniform policy {uniform.exploitability:.6f})",
            f"expected return of player 0  {metrics['eval/return_player_0']:+.6f}",
        ]

    def summary(self, metrics: Mapping[str, float]) -> dict:
        return {"nash_conv": metrics["eval/nash_conv"], "exploitability": metrics["eval/exploitability"]}

    def yardsticks(self) -> dict[str, float]:
        """The uniform policy, and CFR+ after 1,000 iterations for two players whose tree is small."""
        tree, found = self.tree, {"uniform policy": self.uniform().nash_conv}
        perfect_recall = tree is not None and tree.num_infosets == tree.num_rows
        if perfect_recall and tree.num_nodes <= SOLVED and tree.game.zero_sum and tree.game.num_players == 2:
            found["CFR+ (tabular)"] = tree.evaluate(tree.cfr_plus(1000)).nash_conv
        return {name: value for name, value in found.items() if value > 0}


class Matches(Evaluation):
    """Games against opponents, no league needed: every seat (of teams: every team) equally often, the same deals each
    time. Logs `eval/win_rate/<opponent>` (draws count half) and `eval/return/<opponent>` (reward units per game), the
    mean over the opponents and the worst of them; of greedy play `eval/greedy/win_rate/<opponent>` and so on.
    summary.json has 95 % intervals, Wilson's for win rates.

    Args:
        opponents: as `data.opponents` of a league: random, import paths of heuristics or players, player files,
            checkpoints.
        games: against each, for each way to play.
        metric: return or win_rate: which one the headline is the worst opponent's of. Where games are not all won by
            as much, hands won do not say who gains.
        play: how the policy chooses: sampled, as it has learned; greedy, its likeliest action, which hides from nobody.
            The headline is of sampled play if that is listed.

    Attributes:
        matches: of the last call, by way to play and opponent.
    """

    def __init__(
        self,
        opponents: Sequence[str | dict[str, Any]],
        games: PositiveInt = 1000,
        metric: str = "return",
        play: Sequence[str] = (SAMPLED,),
    ):
        check_ranges(Matches.__init__, locals())
        if not opponents:
            raise ConfigError("evaluation: Matches needs opponents, such as [random]")
        if metric not in ("win_rate", "return"):
            raise ConfigError(f"evaluation: metric={metric!r}: unknown; use return or win_rate")
        play = [play] if isinstance(play, str) else list(play)
        if not play or len(set(play)) < len(play) or not set(play) <= {SAMPLED, GREEDY}:
            raise ConfigError(f"evaluation: play={play}: use [sampled], [greedy] or [sampled, greedy]")
        self.opponents, self.games, self.metric, self.play = list(opponents), int(games), metric, play
        ahead, how = ("", "") if SAMPLED in play else (_under(GREEDY), "greedy, ")
        self.headline = f"eval/{ahead}{metric}/worst"
        self.short = "worst win rate" if metric == "win_rate" else "worst return"
        self.label = f"{how}win rate against the worst opponent"
        if metric == "return":
            self.label = f"{how}return against the worst opponent (reward units per game)"
        self.players: dict[str, Player] = {}
        self.matches: dict[str, dict[str, Match]] = {}

    def open(self, game: Interface, seed: int, make_env: MakeEnv) -> None:
        self.seed, self.make_env = int(seed), make_env
        self.slow = not isinstance(game, Game)  # a simulator's games take long
        if not self.players:
            trust(path_and_arguments(spec)[0] for spec in self.opponents if not names_a_file(spec))
            names = [name_of(spec) for spec in self.opponents]
            if taken := {name for name in names if names.count(name) > 1 or name in ("mean", "worst")}:
                raise ConfigError(
                    f"evaluation: opponents {sorted(taken)} cannot be told apart by name; rename the files"
                )
            self.players = {name: load_player(spec, game) for name, spec in zip(names, self.opponents)}

    def metrics(self, game: Interface) -> set[str]:
        names = [*map(name_of, self.opponents), "mean", "worst"]
        return {f"eval/{_under(how)}{metric}/{name}" for how in self.play for metric in MEASURES for name in names}

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        training, device = policy.training, next(policy.parameters()).device
        with torch.autocast(device.type, enabled=False):
            self.matches = {how: self._play(NetworkPlayer(policy, device, greedy=how == GREEDY)) for how in self.play}
        policy.train(training)
        metrics = {}
        for how, matches in self.matches.items():
            for metric, of in MEASURES.items():
                ahead, values = f"eval/{_under(how)}{metric}", [of(match) for match in matches.values()]
                metrics |= {f"{ahead}/{name}": value for name, value in zip(matches, values)}
                metrics |= {f"{ahead}/mean": float(np.mean(values)), f"{ahead}/worst": min(values)}
        return metrics

    def _play(self, learner: Player) -> dict[str, Match]:
        """A match against each opponent, by name."""
        seeds = [derive_key(self.seed, EVALUATION_STREAM, i) for i in range(len(self.players))]
        return {
            name: match_players(self.make_env, learner, player, self.games, seed)
            for seed, (name, player) in zip(seeds, self.players.items())
        }

    def lines(self, metrics: Mapping[str, float]) -> list[str]:
        """A row for each opponent; of one way to play with both intervals, of two side by side."""
        width = max(len(name) for name in self.players)
        if len(self.play) == 1:
            (how,) = self.play
            ahead, said = f"eval/{_under(how)}win_rate", "" if how == SAMPLED else f"{how}: "
            return [
                *(f"against {name:{width}}  {match}" for name, match in self.matches[how].items()),
                f"{said}mean win rate {metrics[f'{ahead}/mean']:.3f}, worst {metrics[f'{ahead}/worst']:.3f}",
            ]
        found = [f"{'win rate, return':{width + 8}}" + "".join(f"  {how:30}" for how in self.play).rstrip()]
        for name in self.players:
            cells = []
            for matches in self.matches.values():
                low, high = matches[name].win_interval()
                cells.append(f"{matches[name].win_rate:.3f} [{low:.3f}, {high:.3f}] {matches[name].mean_return:+9.3f}")
            found.append("  ".join([f"against {name:{width}}", *(f"{cell:30}" for cell in cells)]).rstrip())
        for which in ("mean", "worst"):
            cells = []
            for how in self.play:
                rate, mean = (metrics[f"eval/{_under(how)}{metric}/{which}"] for metric in MEASURES)
                cells.append(f"{rate:.3f}{'':15} {mean:+9.3f}")
            found.append("  ".join([f"{which:{width + 8}}", *(f"{cell:30}" for cell in cells)]).rstrip())
        return found

    def summary(self, metrics: Mapping[str, float]) -> dict:
        """Sampled play as it is, greedy play under `greedy`."""
        said = {}
        for how, matches in self.matches.items():
            rate = f"eval/{_under(how)}win_rate"
            facts = {"win_rate": metrics[f"{rate}/mean"], "worst_win_rate": metrics[f"{rate}/worst"]}
            facts["against"] = {name: facts_of(match) for name, match in matches.items()}
            said |= facts if how == SAMPLED else {how: facts}
        return said

    def draw(self, title: str, path: Path) -> bool:
        draw_win_rates(self.matches, title, path)
        return True

    def yardsticks(self) -> dict[str, float]:
        return {"even": 0.5 if self.metric == "win_rate" else 0.0}


class Ladder(Matches):
    """Matches against rungs whose Elo ratings are known, and the rating of the policy, eval/elo, that explains them.

    The rating R at which as much was scored as expected: sum over the rungs of games (score - E(R, rung)) = 0, with
    E = 1 / (1 + 10^((rung - R) / 400)) and one more game drawn against each rung, so that R is finite. Elo's model is a
    coarse one: a policy may beat a rung and lose to a lower one.

    Args:
        opponents: as of `Matches`.
        ratings: of each opponent, in points of Elo.
        games, play: as of `Matches`.
    """

    def __init__(
        self,
        opponents: Sequence[str | dict[str, Any]],
        ratings: Sequence[float],
        games: PositiveInt = 1000,
        play: Sequence[str] = (SAMPLED,),
    ):
        super().__init__(opponents, games, "win_rate", play)
        if len(ratings) != len(self.opponents) or not all(math.isfinite(rating) for rating in ratings):
            raise ConfigError(f"evaluation: ratings={list(ratings)}: Ladder needs a finite one for each opponent")
        self.ratings = [float(rating) for rating in ratings]
        self.headline = f"eval/{_under(SAMPLED if SAMPLED in self.play else GREEDY)}elo"
        self.short, self.label = "Elo", "Elo over the ladder"

    def metrics(self, game: Interface) -> set[str]:
        return super().metrics(game) | {f"eval/{_under(how)}elo" for how in self.play}

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        metrics = super().__call__(policy)
        for how, matches in self.matches.items():
            scores = [(match.win_rate, float(match.games.sum())) for match in matches.values()]
            metrics[f"eval/{_under(how)}elo"] = elo_of(scores, self.ratings)
        return metrics

    def lines(self, metrics: Mapping[str, float]) -> list[str]:
        found = ", ".join(f"{metrics[f'eval/{_under(how)}elo']:.0f} {how}" for how in self.play)
        return [*super().lines(metrics), f"Elo {found}; the rungs have {self.ratings}"]

    def summary(self, metrics: Mapping[str, float]) -> dict:
        return super().summary(metrics) | {"elo": {how: metrics[f"eval/{_under(how)}elo"] for how in self.play}}

    def yardsticks(self) -> dict[str, float]:
        return {name_of(spec): rating for spec, rating in zip(self.opponents, self.ratings)}


def elo_of(scores: Sequence[tuple[float, float]], ratings: Sequence[float]) -> float:
    """The Elo rating that explains (share won, games) against opponents of these ratings, see `Ladder`."""
    low, high = min(ratings) - 4000.0, max(ratings) + 4000.0
    for _ in range(60):
        middle = (low + high) / 2
        expected = [expected_score(middle, rating) for rating in ratings]
        left = sum(share * games + 0.5 - (games + 1) * e for (share, games), e in zip(scores, expected))
        low, high = (middle, high) if left > 0 else (low, middle)
    return (low + high) / 2


def _under(how: str) -> str:
    """Where the metrics of a way to play stand below eval/."""
    return "" if how == SAMPLED else f"{how}/"


def facts_of(match: Match) -> dict:
    """What summary.json says of one match."""
    return {
        "games": int(match.games.sum()),
        "win_rate": match.win_rate,
        "win_rate_interval": list(match.win_interval()),
        "return": match.mean_return,
        "return_interval": list(match.return_interval()),
    }


def open_evaluation(
    jobs: Sequence[Evaluation] | None, game: Interface, seed: int, make_env: MakeEnv, needed: bool
) -> list[Evaluation]:
    """The jobs, ready; None stands for `Exact` where the game is small enough.

    Raises:
        ConfigError: a job that cannot be done for this game; or `needed`, and the game is too large for `Exact`.
    """
    opened = [Exact()] if jobs is None else list(jobs)
    kinds = [type(job).__name__ for job in opened]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise ConfigError(f"data.evaluation: {twice[0]} is listed twice, and its metrics have one name each; use one")
    try:
        for job in opened:
            job.open(game, seed, make_env)
    except ConfigError as error:
        if jobs is not None or needed:
            raise
        warnings.warn(f"nothing is evaluated. {error}", stacklevel=3)
        return []
    return opened


def check_monitors(trainer: L.Trainer, jobs: Sequence[Evaluation], game: Interface, others: Sequence[str]) -> None:
    """Hold what checkpoints, early stopping and learning rates go by against what is logged, before a run begins.

    Names of `eval/`, and those without a slash, are known where all who could log them say so: not with a
    validation_step, a callback or an evaluation of a stranger's. Without any evaluation nothing is asked for.

    Args:
        others: monitors beside those of the callbacks.

    Raises:
        ConfigError: a monitor that nothing logs; names those that are logged.
    """
    rooms = ("callbacks", "lit_rl", "lightning")
    strangers = any(type(callback).__module__.split(".")[0] not in rooms for callback in trainer.callbacks)
    besides = any(getattr(callback, "logs_evaluations", False) for callback in trainer.callbacks)
    names = [job.metrics(game) for job in jobs]
    strangers |= type(trainer.lightning_module).validation_step is not evaluation_step
    if strangers or besides or not jobs or None in names:
        return
    known = set().union(*names)
    asked = [(type(callback).__name__, getattr(callback, "monitor", None)) for callback in trainer.callbacks]
    for name, monitor in [*asked, *(("lr_schedule", monitor) for monitor in others)]:
        if isinstance(monitor, str) and monitor not in known and (monitor.startswith("eval/") or "/" not in monitor):
            close = difflib.get_close_matches(monitor, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"logged are {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f"{name}: monitor={monitor}: no evaluation logs it; {hint}")


def evaluation_step(module: L.LightningModule, job: Evaluation, batch_idx: int) -> None:
    """An algorithm's `validation_step` and `test_step`: log what is measured, and perf/evaluation_<what>_seconds."""
    metrics = job(module.export_policy())
    seconds = {f"perf/evaluation_{what}_seconds": value for what, value in job.seconds.items()}
    module.log_dict(metrics | seconds, batch_size=1)


def table_step(module: L.LightningModule, job: Exact, batch_idx: int) -> Tensor:
    """An algorithm's `predict_step`: action probabilities [R, A] of the exported policy at every infostate; of a policy
    with a memory at every infoset (`GameTree.unfolded`).

    Raises:
        ConfigError: the game has too many of them.
    """
    check_table(job.evaluator, "predict")
    return torch.from_numpy(policy_table(module.export_policy(), job.evaluator))


def check_table(evaluator: ExactEvaluator, what: str) -> None:
    """Raise ConfigError where a policy of so many infostates is not written down; `what` would do so."""
    if evaluator.num_rows > LONGEST_TABLE:
        raise ConfigError(
            f"{what}: {evaluator.game.name} has {evaluator.num_rows:,} infostates, and a table has {LONGEST_TABLE:,} "
            "at most; evaluate the policy instead (litrl validate), or train an exploiter"
        )


def uniform_policy(obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """All legal actions equally likely: [N, A] float64."""
    return legal / legal.sum(axis=1, keepdims=True)


def probabilities(policy: nn.Module) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(obs [N, *D], legal [N, A]) -> action probabilities [N, A] float64 of `policy`, in full precision."""
    device = next(policy.parameters()).device

    @torch.no_grad()
    def ask(obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        training = policy.training
        policy.eval()
        with torch.autocast(device.type, enabled=False):
            logits = policy(torch.from_numpy(obs).to(device), torch.from_numpy(legal).to(device)).logits
        policy.train(training)
        return torch.softmax(logits.double(), dim=-1).cpu().numpy()

    return ask


class _Timed:
    """A policy as a function, and the seconds that its answers have taken."""

    def __init__(self, ask: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.ask, self.seconds = ask, 0.0

    def __call__(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        found = self.ask(obs, legal)
        self.seconds += time.perf_counter() - began
        return found


def evaluator_for(policy: nn.Module, evaluator: ExactEvaluator) -> ExactEvaluator:
    """The evaluator in which `policy` is a function of the row: with a memory that is the unfolded tree.

    Raises:
        ConfigError: it has a memory, and there is no tree.
    """
    if not state_shape_of(policy):
        return evaluator
    if not isinstance(evaluator, GameTree):
        raise ConfigError(
            f"data.evaluation: {type(policy).__name__} has a memory, and is evaluated exactly along own pasts on a "
            f"tree alone; {evaluator.game.name} is too large for one: raise max_nodes of Exact, or use Matches"
        )
    return evaluator.unfolded


def policy_table(policy: nn.Module, evaluator: ExactEvaluator, chunk: int = CHUNK) -> np.ndarray:
    """Action probabilities [R, A] float64 of `policy` at every row of `evaluator`, in full precision.

    With a memory at every infoset of the unfolded tree, as it is after the same player's decisions before.
    """
    if state_shape_of(policy):
        return _table_along_own_pasts(policy, evaluator_for(policy, evaluator), chunk)
    ask = probabilities(policy)
    return np.concatenate([ask(obs, legal) for obs, legal, _ in all_rows(evaluator, chunk)])


@torch.no_grad()
def _table_along_own_pasts(policy: nn.Module, tree: GameTree, chunk: int) -> np.ndarray:
    """Depth by depth: each infoset begins with what the policy remembered after the one before it."""
    device, training, before = next(policy.parameters()).device, policy.training, tree.before
    depth = np.zeros(len(before), np.int64)
    while (deeper := np.where(before >= 0, depth[before] + 1, 0)).sum() > depth.sum():
        depth = deeper
    table, last, after = np.empty(tree.legal.shape), np.empty(0, np.int64), torch.zeros(1, *state_shape_of(policy))
    policy.eval()
    for d in range(depth.max() + 1):
        rows, found = np.flatnonzero(depth == d), []
        state = after[np.searchsorted(last, before[rows])] if d else after.expand(len(rows), *after.shape[1:])
        for part in np.split(np.arange(len(rows)), range(chunk, len(rows), chunk)):
            obs, legal = (torch.from_numpy(x[rows[part]]).to(device) for x in (tree.obs, tree.legal))
            with torch.autocast(device.type, enabled=False):
                output = policy(obs, legal, state[part].to(device))
            table[rows[part]] = torch.softmax(output.logits.double(), dim=-1).cpu().numpy()
            found.append(output.state.float().cpu())
        last, after = rows, torch.cat(found)
    policy.train(training)
    return table


def exact_evaluation(policy: nn.Module, evaluator: ExactEvaluator) -> ExactEvaluation:
    """NashConv and returns of `policy`, also of one with a memory; raises as `evaluator_for`."""
    return evaluator_for(policy, evaluator).evaluate(_answers(policy, evaluator))


def _answers(policy: nn.Module, evaluator: ExactEvaluator) -> Policy:
    """What `evaluator_for(policy, evaluator)` asks: a function of the row, or a table along own pasts."""
    return policy_table(policy, evaluator) if state_shape_of(policy) else probabilities(policy)


def exact_metrics(policy: nn.Module | Policy, evaluator: ExactEvaluator) -> dict[str, float]:
    """`eval/nash_conv`, `eval/exploitability` and each player's expected return, in the game's reward units.

    Raises:
        FloatingPointError: a NashConv that no policy of this game can have.
    """
    evaluation = exact_evaluation(policy, evaluator) if isinstance(policy, nn.Module) else evaluator.evaluate(policy)
    game = evaluator.game
    most = 2 * game.num_players * game.max_return  # each gains at most from -max_return to max_return
    if not -1e-9 * most <= evaluation.nash_conv <= most:
        raise FloatingPointError(
            f"eval/nash_conv={evaluation.nash_conv} of {game.name} lies outside [0, {most}]: the policy's output "
            "or the game's max_return is wrong"
        )
    metrics = {"eval/nash_conv": evaluation.nash_conv, "eval/exploitability": evaluation.exploitability}
    return metrics | {f"eval/return_player_{p}": float(r) for p, r in enumerate(evaluation.returns)}
