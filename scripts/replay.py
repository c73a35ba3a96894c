"""The `litrl-replay` command: verify a replay by the rules and a checkpoint, or show one of its games.

    litrl-replay verify <run>/replay.jsonl [--ckpt_path <run>/checkpoints/last.ckpt]
    litrl-replay show <run>/replay.jsonl --game 17

Exits with 0 if all is well, 2 if the command line is wrong, 3 and one line on stderr if a file is not to be trusted.
"""

import argparse
import functools
import sys
from pathlib import Path

import torch
from torch import nn

from envs.game import Game, action_names, load_game
from lit_rl.armac.memory import Memory
from lit_rl.armac.mix_scheduler import Scheduler
from lit_rl.armac.mixed_policy import mixed_policy
from lit_rl.armac.mixing import Mixer
from lit_rl.league.player_file import build_fitting, fitting
from lit_rl.policy import ActorCritic
from lit_rl.run.allowed import check_code, check_name, import_allowed, trust
from lit_rl.run.errors import ArtefactError
from lit_rl.run.own_code import import_from, what_is_missing
from lit_rl.run.plain_file import check_tensors, load_plain
from lit_rl.run.replay import Position, check_rules, refusing, verify, weights_hash
from lit_rl.run.replay_file import read


def game_of(path: Path) -> Game:
    _, header = next(read(path))
    try:
        return load_game(check_name(header.get("game"), f"{path}, line 1"))
    except ValueError as error:
        raise ArtefactError(f"{path}, line 1: {error}") from None


def policy_of(ckpt_path: Path, game: Game) -> tuple[nn.Module, str]:
    """The policy that plays in a checkpoint of `litrl fit`, and the hash that its weights had when saved.

    It is built from the network that the checkpoint names (ARMAC's from its four parts), each held against its kind;
    of the rest only numbers are read, never code.
    """
    try:
        checkpoint = load_plain(ckpt_path, "checkpoint")
        settings = {"network": checkpoint.get("network")} | checkpoint["hyper_parameters"]
        state, where = checkpoint["state_dict"], str(ckpt_path)
        check_tensors(state, ckpt_path.stat().st_size, where)
        weights = {k.removeprefix("policy."): v for k, v in state.items() if k.startswith("policy.")}

        def factory(part: str, kind: type):
            check_code(settings[part], where)
            built = import_allowed(settings[part]["class_path"], where)
            if not (isinstance(built, type) and issubclass(built, kind)):
                raise ArtefactError(f"{where}: {part} {settings[part]['class_path'][:200]} is no {kind.__name__}")
            return functools.partial(built, **settings[part].get("init_args", {}))

        network = factory("network", ActorCritic)
        if checkpoint["run"]["algorithm"] == "ARMAC":
            parts = (("scheduler", Scheduler), ("memory", Memory), ("mixer", Mixer))
            built = {part: factory(part, kind) for part, kind in parts}
            shares = {name: settings[name] for name in ("use_scheduler", "mix_lambda")}
            policy = fitting(lambda: mixed_policy(game, network, **built, **shares), weights, where, "its four parts")
        else:
            policy = build_fitting(settings["network"], game, weights, where)
        policy.load_state_dict(weights)
        states = [state for key, state in checkpoint.get("callbacks", {}).items() if key.startswith("Replay")]
    except ArtefactError:
        raise
    except Exception as error:  # whatever a broken file makes the unpickler or the network stumble over
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ArtefactError(
            f"{ckpt_path}: no usable checkpoint of this game: {type(error).__name__} {reason}"
        ) from None
    policy.eval()
    return policy, states[0]["weights"] if states else weights_hash(policy)


def run_verify(args: argparse.Namespace) -> None:
    game, policy, weights = game_of(args.file), None, None
    if args.ckpt_path is not None:
        policy, weights = policy_of(args.ckpt_path, game)
    report = verify(args.file, game, policy, weights, args.tolerance)
    if policy is not None and weights != weights_hash(policy):
        raise ArtefactError(f"{args.ckpt_path}: its weights are not those it was saved with; take another checkpoint")
    print(f"{args.file}: ok, {report.games} games, {report.decisions} decisions of {game.name} {game.version}")
    if policy is not None:
        print(
            f"  by these weights: {report.games_of_weights} games, {report.decisions_of_weights} decisions; "
            f"largest error of logits {report.max_logit_error:.2e}, of values {report.max_value_error:.2e}"
        )
        others = report.games - report.games_of_weights
        print(f"  by other weights or precision: {others} games, rules and rewards checked only")


def run_show(args: argparse.Namespace) -> None:
    game, chosen, lines = game_of(args.file), None, 0
    for _, record in read(args.file):  # to the end: a broken file is refused, wherever it is broken
        lines += 1
        chosen = record if record.get("index") == args.game else chosen
    if chosen is None:
        args.refuse(f"--game {args.game}: {args.file} holds {lines - 1} games, numbered from 0")
    with refusing(args.file, args.game + 2):
        check_rules(game, chosen)
        show(game, chosen)


def show(game: Game, chosen: dict) -> None:
    print(
        "game {index} | iteration {iteration}, {decisions} decisions into the run, env row {row} | weights "
        "{weights:.12} | temperature {temperature}".format(**chosen)
    )
    position, moves = Position(game), iter(chosen["moves"])
    print(game.render(position.state))
    for action in chosen["history"]:
        if position.player < 0:
            print(f"chance: {action}")
        else:
            move = next(moves)
            what = "an opponent's move"
            if "logits" in move:
                probs = torch.softmax(torch.tensor(move["logits"], dtype=torch.float64), -1).tolist()
                names = [action_names(game, position.state, a)[0] for a in move["legal"]]
                policy = ", ".join(f"{name} {p:.3f}" for name, p in zip(names, probs))
                what = f"{policy}; value {move['value']:+.3f}"
            name = action_names(game, position.state, action)[0]
            print(f"player {move['player']}: {name}   ({what})")
        position.play(action)
        print(f"  {game.render(position.state)}")
    rewards = [sum(move["rewards"][p] for move in chosen["moves"]) for p in range(game.num_players)]
    print(f"rewards {rewards}{' (cut off)' if chosen['truncated'] else ''}")


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("litrl-replay", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for run, what in ((run_verify, "play every game again and compare"), (run_show, "print one game, move by move")):
        command = commands.add_parser(run.__name__.removeprefix("run_"), help=what, description=what)
        command.set_defaults(run=run, refuse=command.error)
        command.add_argument("file", type=Path, help="a replay.jsonl")
        command.add_argument(
            "--allow", nargs="+", default=[], metavar="PACKAGE", help="import games and networks from there too"
        )
        command.add_argument("--code", type=Path, help="folder that they lie in, beside the current one")
        if run is run_show:
            command.add_argument("--game", type=int, required=True, help="its index, from 0")
        else:
            command.add_argument("--ckpt_path", type=Path, help="hold logits and values against its weights")
            command.add_argument("--tolerance", type=float, default=1e-6, help="of logits and values; default 1e-6")
    parsed = parser.parse_args(args)
    for path in filter(None, (parsed.file, getattr(parsed, "ckpt_path", None))):
        if not path.is_file():
            parser.error(f"{path}: no such file")
    if parsed.code is not None and not parsed.code.is_dir():
        parser.error(f"--code {parsed.code}: no such folder")
    import_from(parsed.code)
    trust(parsed.allow)
    try:
        parsed.run(parsed)
    except ArtefactError as error:
        print(f"error[3]: {error}{what_is_missing(str(error))}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
