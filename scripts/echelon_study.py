"""What each part of the learner brings on Echelon: equal decisions, equal seeds, one part changed at a time.

    python scripts/echelon_study.py --seeds 211 212 213 --jobs 2 [--game envs.echelon.three] [--only base MLP ...]

Every variant is configs/echelon_ppo.yaml with PFSP as its matchmaker and the overlay below.

    base            GRU, sets, advantages normalised per role, 0.3 of the team's rewards, PFSP
    MLP             no memory
    flat            one layer over the whole obs instead of sets
    batch, none     advantages normalised in each minibatch, or not at all
    share 0, 1      of the team's rewards
    uniform         all members are met alike

Finished runs are kept in --folder and not repeated. Prints a table: of each variant the median over the seeds of the
win rate against each opponent and of their mean, and how far the mean lies above that of `base`, seed by seed.
"""

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from lit_rl.run.own_code import HOME as ROOT
from scripts.ablation import finished, with_overlay

CONFIG = ROOT / "configs" / "echelon_ppo.yaml"
STREAMS = {"class_path": "envs.echelon.network.Streams", "init_args": {"width": 128, "each": 48, "pool": "mean"}}
DENSE = {"class_path": "lit_rl.networks.Dense", "init_args": {"hidden": [128]}}
PFSP = {"matchmaker": "pfsp", "matchmaker_options": {"weighting": "hard", "power": 2.0}}


def network(name: str, **arguments) -> dict:
    return {"model": {"init_args": {"network": {"class_path": name, "init_args": arguments}}}}


def advantages(normalised: bool) -> dict:
    return {"model": {"init_args": {"normalize_advantages": normalised}}}


VARIANTS = {
    "base": {},
    "MLP": network("Encoded", encoder=STREAMS),
    "flat": network("Recurrent", encoder=DENSE, cell="gru", memory=128),
    "batch": advantages(True),
    "none": advantages(False),
    "share 0": {"data": {"team_share": 0.0}},
    "share 1": {"data": {"team_share": 1.0}},
    "uniform": {"data": {"matchmaker": "uniform", "matchmaker_options": {}}},
}


def config_of(name: str, game: str, iterations: int | None, games: int | None) -> str:
    """The config of a variant, as YAML."""
    overlay = VARIANTS[name]
    data = PFSP | {"game": game} | overlay.get("data", {})
    config = yaml.safe_load(with_overlay(CONFIG, overlay | {"data": data}, iterations))
    if config["model"]["init_args"]["network"]["class_path"] == "Encoded":
        del config["model"]["init_args"]["minibatches"]["chunk_length"]  # of a memory
    if games is not None:
        config["data"]["init_args"]["evaluation"][0]["init_args"]["games"] = games
    return yaml.safe_dump(config, sort_keys=False)


def measure(name: str, seed: int, args: argparse.Namespace) -> dict:
    """The summary of one run."""
    summary = finished(name, config_of(name, args.game, args.iterations, args.games), seed, args.folder)
    print(f"{name:<10} seed {seed}  win rate {summary['win_rate']:.3f}  {summary['seconds']:.0f} s", flush=True)
    return summary


def table(summaries: dict[str, list[dict]]) -> str:
    """Median win rates of each variant, seed by seed in the same order, as text."""
    names = list(next(iter(summaries.values()))[0]["against"])
    wide = [max(len(name), 6) for name in names]
    lines = [
        f"{'variant':<10}  {'mean':>6}  " + "  ".join(f"{n:>{w}}" for n, w in zip(names, wide)) + "  mean above base"
    ]
    for variant, group in summaries.items():
        cells = [statistics.median(s["against"][name]["win_rate"] for s in group) for name in names]
        mean = statistics.median(s["win_rate"] for s in group)
        line = f"{variant:<10}  {mean:>6.3f}  " + "  ".join(f"{cell:>{w}.3f}" for cell, w in zip(cells, wide))
        if "base" in summaries:
            above = [s["win_rate"] - b["win_rate"] for s, b in zip(group, summaries["base"])]
            line += f"  {statistics.median(above):+.3f} [{min(above):+.3f}, {max(above):+.3f}]"
        lines.append(line)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[211, 212, 213])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--game", default="envs.echelon.three", help="import path of Echelon, of any size")
    parser.add_argument("--iterations", type=int, help="instead of the config's; its schedules shrink with them")
    parser.add_argument("--games", type=int, help="against each opponent at the end, instead of the config's")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to run")
    parser.add_argument("--folder", type=Path, default=Path("runs/echelon_study"))
    args = parser.parse_args(arguments)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {name: [pool.submit(measure, name, seed, args) for seed in args.seeds] for name in args.only}
        summaries = {name: [job.result() for job in group] for name, group in jobs.items()}
    found = next(iter(summaries.values()))[0]
    print(f"\n{found['game']}, {found['decisions']:,} decisions, {len(args.seeds)} seeds\n{table(summaries)}")


if __name__ == "__main__":
    main()
