"""The floor that a config's last entropy coefficient sets: NashConv of the agent quantal response equilibrium.

    python scripts/aqre.py configs/leduc_ppo.yaml configs/leduc_rnad.yaml ...
    python scripts/aqre.py --game envs.leduc_poker --entropy 0.15 0.08

Self-play with an entropy bonus of so many reward units per nat rests where every infostate plays softmax(q / entropy),
not at the equilibrium of the game (`GameTree.quantal_response`). No training with that coefficient at its end gets
closer, but for luck; a reference policy that has come to rest at the learner itself changes nothing about it.
"""

import argparse
from pathlib import Path

import yaml

from envs.exact import GameTree
from envs.game import load_game


def last_entropy(config: dict) -> float:
    """model.entropy_coef in the last iteration: what its ScalarSchedule ends at, or the fixed one.

    Raises:
        ValueError: the config names neither, or the schedule has no end that stands in it.
    """
    for callback in config["trainer"].get("callbacks", []):
        arguments = callback.get("init_args", {}) if isinstance(callback, dict) else {}
        if arguments.get("target") == "model.entropy_coef":
            schedule = arguments["schedule"].get("init_args", {})
            if found := [schedule[name] for name in ("end", "value") if name in schedule]:
                return float(found[0])
            raise ValueError(f"the schedule of model.entropy_coef has neither end nor value: {arguments['schedule']}")
    if "entropy_coef" in config["model"].get("init_args", {}):
        return float(config["model"]["init_args"]["entropy_coef"])
    raise ValueError("the config names no model.entropy_coef; use --game and --entropy")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, help="YAMLs for litrl fit")
    parser.add_argument("--game", help="with --entropy instead of configs")
    parser.add_argument("--entropy", type=float, nargs="+", default=[], help="reward units per nat")
    args = parser.parse_args(arguments)
    if bool(args.configs) == bool(args.game and args.entropy):
        parser.error("give configs, or --game and --entropy")
    asked = [(args.game, entropy, args.game) for entropy in args.entropy]
    for path in args.configs:
        config = yaml.safe_load(path.read_text())
        try:
            asked.append((path.name, last_entropy(config), config["data"]["init_args"]["game"]))
        except ValueError as error:
            parser.error(f"{path}: {error}")
    trees = {game: GameTree(load_game(game)) for game in {game for *_, game in asked}}
    for name, entropy, game in asked:
        tree = trees[game]
        found = tree.evaluate(tree.quantal_response(entropy)).nash_conv if entropy > 0 else 0.0
        print(f"{name:<24} entropy {entropy:<8g} NashConv {found:.4f}", flush=True)


if __name__ == "__main__":
    main()
