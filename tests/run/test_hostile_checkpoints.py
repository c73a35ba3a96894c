"""Checkpoints that were tampered with: refused in one line, or nothing has changed; no crash, nothing in silence."""

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import GAMES, small_mlp
from harness import ROOT, RUNS
from numba import njit
from tampering import same

from envs.env import SavedGamesError
from envs.game import CHANCE, load_game
from envs.vector_env import FIRST_MOVES, VectorEnv
from lit_rl.batches import own_past
from lit_rl.networks import Recurrent
from lit_rl.rollout import Collecting, collect
from lit_rl.run.errors import ArtefactError
from lit_rl.run.resume import well_formed
from lit_rl.run.saved_optimizers import take_training_state
from lit_rl.run.saved_rollout import rollout_of_state
from lit_rl.schedules import Exponential

OUTCOMES = ("cases", "refused", "same", "believed", "silent", "crashed", "imports")
KINDS = {"checkpoint, our part", "checkpoint, resumed whole", "player file", "replay", "league"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def in_a_child(script: str, *args: str) -> str:
    """What a process with bounds checks prints last; a crash fails here, with the signal's number."""
    env = os.environ | {"LITRL_BOUNDS_CHECK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-W", "ignore", *([script] if script.endswith(".py") else ["-c", script]), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=env | {"WANDB_MODE": "disabled"}, cwd=ROOT)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("count", "names"),
    [
        pytest.param(50, ["leduc_league", "kuhn_armac"], id="some"),
        pytest.param(450, list(RUNS), marks=pytest.mark.slow, id="all"),
    ],
)
def test_artefacts_that_were_tampered_with(count, names):
    """Refused in one line, without effect, or a place that is believed: no crash, no import, nothing in silence."""
    found = json.loads(in_a_child("tests/hostile.py", str(count), *names))
    for kind, tally in found["tally"].items():
        print(f"\n{kind}: {', '.join(f'{tally.get(what, 0)} {what}' for what in OUTCOMES)}", end="")
    assert not found["worst"]
    assert found["tally"].keys() == KINDS
    for kind, tally in found["tally"].items():
        assert tally["refused"] > 0.4 * tally["cases"], kind


def test_the_switch_for_bounds_checks_is_heard():
    script = (
        "import numpy as np\nfrom envs.driver import kernel\n"
        "@kernel\ndef beyond(a):\n    a[7] = 1\n"
        "try:\n    beyond(np.zeros(3))\nexcept IndexError:\n    print('caught')\n"
    )
    assert in_a_child(script) == "caught"


def played(game, num_steps=25, **env):
    env = VectorEnv(game, 40, seed=3, **env)
    for _ in range(num_steps):
        env.step(env.sample_uniform())
    return env


@pytest.mark.parametrize("path", GAMES)
def test_saved_games_are_played_again(path):
    """No byte of a state is taken from a file; every array comes out as it was, whatever the other env held."""
    env, other = played(load_game(path)), played(load_game(path), 3)
    saved = env.state_dict()
    assert saved.keys() == {"game", "num_decisions", "game_streams", "action_streams", "moves"}
    other.load_state_dict(saved)
    for name in ("state", "player", "legal", "obs", "history", "num_decisions", "chance_streams", "game_streams"):
        assert getattr(env, name).tobytes() == getattr(other, name).tobytes(), name
    assert other.state_dict() == saved


@pytest.mark.parametrize("path", GAMES)
def test_saved_games_that_no_rule_has_brought_about(path):
    """Of 40 random changes of each kind those that break a rule are refused, and no row has changed; the others load
    as games of the rules."""
    game, rng = load_game(path), np.random.default_rng(5)
    env = played(game)
    saved, other, refused = env.state_dict(), VectorEnv(game, 40, seed=8), 0
    for i in range(160):
        name = ("moves", "num_decisions", "game_streams", "game")[i % 4]
        data = bytearray(saved[name].encode() if name == "game" else saved[name])
        if data:
            data[rng.integers(len(data))] = rng.integers(256)
        changed = data.decode(errors="replace") if name == "game" else bytes(data)
        before = other.state_dict()
        try:
            other.load_state_dict(saved | {name: changed})
        except ValueError:
            refused += 1
            assert other.state_dict() == before
        twin = VectorEnv(game, 40, seed=9)
        twin.load_state_dict(other.state_dict())
        assert twin.state.tobytes() == other.state.tobytes()
        other.step(other.sample_uniform())
    assert refused > 30


def test_every_field_of_a_saved_env_is_needed(kuhn):
    env = played(kuhn)
    saved = env.state_dict()
    for name in saved:
        for value in (None, 3, [], torch.zeros(3)):
            with pytest.raises(SavedGamesError):
                env.load_state_dict(saved | {name: value})
        with pytest.raises(SavedGamesError):
            env.load_state_dict({key: value for key, value in saved.items() if key != name})
    for value in (None, [], "x"):
        with pytest.raises(SavedGamesError):
            env.load_state_dict(value)
    assert env.state_dict() == saved


def test_a_game_that_is_over_is_not_running(kuhn):
    env = VectorEnv(kuhn, 1, seed=0)
    saved = env.state_dict()
    with pytest.raises(SavedGamesError, match="env row 0 is over"):
        env.load_state_dict(saved | {"num_decisions": np.int32([2]).tobytes(), "moves": bytes([0, 0])})
    with pytest.raises(SavedGamesError, match="num_decisions has 2147483647"):
        env.load_state_dict(saved | {"num_decisions": np.int32([2**31 - 1]).tobytes()})


def test_long_games_get_room_for_their_moves():
    """More decisions than there is room for at first: a game that passes until it is told to stop."""
    game = load_game("envs.kuhn_poker")
    long = dataclasses.replace(game, current_player=_never_over, max_steps=5000)
    env = VectorEnv(dataclasses.replace(long, apply_action=_nothing, rewards=_no_rewards), 3, seed=1)
    for _ in range(5 * FIRST_MOVES):
        env.step(np.int64([0, 1, 1]))
    assert (env.moves[:, : 5 * FIRST_MOVES] == np.uint8([[0], [1], [1]])).all()
    other = VectorEnv(env.game, 3, seed=2)
    other.load_state_dict(env.state_dict())
    assert other.state_dict() == env.state_dict()
    other.step(np.int64([0, 1, 1]))


@pytest.mark.parametrize("cut_games", ["carry", "bootstrap", "drop"])
@pytest.mark.parametrize("truncate_after", [None, 3])
@pytest.mark.parametrize("path", ["envs.leduc_poker", "games.pairs"])
def test_a_rollout_comes_back_as_it_was(path, cut_games, truncate_after):
    game, collecting = load_game(path), Collecting(cut_games=cut_games)
    env = VectorEnv(game, 24, seed=1, truncate_after=truncate_after)
    rollout, policy = None, small_mlp(game)
    for _ in range(3):
        rollout = collect(env, policy, 6, collecting=collecting, previous=rollout)
        for each in (rollout, rollout.tail()):
            again = rollout_of_state(each.state_dict(), env, collecting)
            for name, value in each.state_dict().items():
                same = torch.equal(value, getattr(again, name)) if torch.is_tensor(value) else True
                assert same and (name == "extras" or torch.is_tensor(value) or value == getattr(again, name)), name


@pytest.mark.parametrize("cut_games", ["carry", "bootstrap"])
def test_memories_of_a_rollout_begin_empty(cut_games):
    game, collecting = load_game("envs.leduc_poker_last_card"), Collecting(cut_games=cut_games)
    env, policy = VectorEnv(game, 24, seed=1), Recurrent(game, memory=4)
    rollout = None
    for _ in range(3):
        rollout = collect(env, policy, 7, collecting=collecting, previous=rollout)
        rollout_of_state(rollout.state_dict(), env, collecting, (4,))
    _, ordinal = own_past(rollout)
    first = rollout.played.numpy().copy()
    first[1:] &= rollout.done[:-1].numpy()  # of a game that begins in the rollout
    t, b = np.argwhere(first[1:])[0] + (1, 0)
    assert ordinal.reshape(first.shape)[t, b] == 0 and not rollout.state[t, b].any()
    later = np.argwhere((ordinal.reshape(first.shape) == 1) & rollout.played.numpy())[0]
    for name, index, said in (
        ("state", (t, b), "not 0 where a seat first decides"),
        ("last_state", (int(rollout.done[-1].nonzero()[0]),), "not 0 where a game has just ended"),
    ):
        state = {key: x.clone() if torch.is_tensor(x) else x for key, x in rollout.state_dict().items()}
        state[name][index][..., 0] = 0.5
        with pytest.raises(ArtefactError, match=said):
            rollout_of_state(state, env, collecting, (4,))
    state = {key: x.clone() if torch.is_tensor(x) else x for key, x in rollout.state_dict().items()}
    state["state"][tuple(later)] += 0.5  # what the rules do not tell
    rollout_of_state(state, env, collecting, (4,))


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("player", (-1, 3), 127),
        ("player", (0, 0), -1),
        ("action", (-1, 3), 2**40),
        ("action", (0, 1), -1),
        ("log_prob", (-1, 3), 0.5),
        ("value", (-1, 3), float("nan")),
        ("legal_bits", (-1, 3), 255),
        ("obs", (-1, 3), 9),
        ("outcomes", (-1, 3, 0), 4.0),
        ("bootstrap", (-1, 3), 1.0),
        ("game_stream", (-1, 3), 0),
        ("learner", (-1, 3), False),
        ("played", (-1, 3), False),
        ("exploration", (-1, 3), 2.0),
    ],
)
def test_a_rollout_that_says_what_cannot_be(leduc, name, index, value):
    env = VectorEnv(leduc, 24, seed=1)
    state = collect(env, small_mlp(leduc), 12).state_dict()
    state[name] = state[name].clone()
    state[name][index] = value
    with pytest.raises(ArtefactError, match=rf"^checkpoint: .*{name}|legal"):
        rollout_of_state(state, env, Collecting())


SCHEDULE = torch.optim.lr_scheduler.LinearLR
FORGED = {  # where in optimizer_states[0] or lr_schedulers[0] -> what no run of this configuration has there
    ("state", 0, "exp_avg"): [torch.zeros(1, 7), torch.full((32, 11), torch.nan), None, 3, "x"],
    ("state", 0, "exp_avg_sq"): [torch.full((32, 11), -1.0)],
    ("state", 0, "step"): [torch.tensor(-5.0), torch.tensor([1.0, 2.0])],
    ("state", 99): [{}],
    ("state",): [None, [], {"x": {}}],
    ("param_groups", 0, "lr"): [-1.0, math.nan, math.inf, "fast", None],
    ("param_groups", 0, "betas"): [(0.9, 1.0), (7.0, 0.9), (0.9,), None],
    ("param_groups", 0, "maximize"): [True, 1, None],
    ("param_groups", 0, "params"): [[0], list(range(99)), None],
    ("param_groups", 0, "more"): [1],
    ("param_groups",): [[], None],
    ("last_epoch",): [-7, 1.5, None, "x"],
    ("base_lrs",): [[-1.0], [], [math.inf], None],
    ("step",): [7],
    ("optimizer",): [None],
}


@pytest.mark.parametrize("place", FORGED, ids=lambda place: ".".join(map(str, place)))
def test_optimizers_and_schedules_of_strangers(make_fit, place):
    trainer, model, data = make_fit(
        model={"lr_schedule": lambda optimizer: SCHEDULE(optimizer, 0.5, total_iters=9)}, max_epochs=1
    )
    trainer.fit(model, data)
    sound = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    before = copy.deepcopy(sound)
    take_training_state(sound, model)
    assert same(before["optimizer_states"], sound["optimizer_states"])  # tried on copies alone
    part = "optimizer_states" if place[0] in ("state", "param_groups") else "lr_schedulers"
    for value in FORGED[place]:
        forged = copy.deepcopy(sound)
        target = forged[part][0]
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        with pytest.raises(ArtefactError), well_formed("the optimizers' state"):
            take_training_state(forged, model)


def test_functions_of_a_schedule_have_no_state(make_fit):
    """torch would write whatever is saved there into them."""
    trainer, model, data = make_fit(model={"lr_schedule": Exponential(1.0, 0.1)}, max_epochs=1)
    trainer.fit(model, data)
    sound = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    assert sound["lr_schedulers"][0]["lr_lambdas"] == [None]
    for value in (1, {"__call__": 1}, {}):
        sound["lr_schedulers"][0]["lr_lambdas"] = [value]
        with pytest.raises(ArtefactError, match="needs None"), well_formed("the optimizers' state"):
            take_training_state(sound, model)


def test_a_loader_that_contradicts_its_games(make_fit):
    trainer, model, data = make_fit(max_epochs=1)
    trainer.fit(model, data)
    data.loader.resumed, data.loader.cursor = True, 1
    data.loader.load_state_dict({"cursor": 1})
    with pytest.raises(ArtefactError, match="cursor is 1 of the games, 2 of the loader"):
        data.loader.load_state_dict({"cursor": 2})


@njit
def _never_over(state):
    return state.num_moves % 2 if state.dealt == 2 else CHANCE


@njit
def _nothing(state, action):
    if state.dealt < 2:
        state.card[state.dealt] = action
        state.dealt += 1


@njit
def _no_rewards(state, out):
    pass
