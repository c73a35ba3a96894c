"""What a league is worth on Leduc, in exact NashConv: the same total of decisions, the exploiters' included.

    python scripts/league_study.py --decisions 10000000 --seeds 61 62 63 64 65 --jobs 2 [--only ...]

    python scripts/league_study.py --game envs.kuhn_poker --algorithms PPO --entropy 0.001 --learner_decisions 1000000

Five ways to choose opponents, each for PPO with low entropy and for PPO + moving magnet ("R-NaD"):

    self-play            the current policy in every seat
    past                 half of the games against snapshots of the past, all alike
    pfsp                 the same, those preferred that beat the learner
    exploiters           pfsp, and exploiters trained inline in --exploiters equal turns, each with its part of
                         --exploiter_share of all decisions; the run itself gets what they leave
    oracle               pfsp, and at the same times the exact best response as a member, which costs no decisions

With --learner_decisions every way has as many decisions to learn from; in a league the others' come on top. With
--entropy PPO keeps that coefficient and exports its last weights, so that it circles where it can, and the average of
the policies played (in the sequence form, that of iteration t weighing t) is measured, too.

Finished runs are kept in --folder and not repeated, so the study can be stopped and gone on with. Prints median and
worst NashConv of the exported policy at the end, the interval of the median (the smallest and the largest of n seeds
hold it with probability 1 - 2^(1 - n)), and the decisions that were really made; draws all seeds.
"""

import argparse
import hashlib
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning as L
import yaml

from lit_rl.evaluation import policy_table
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.own_code import HOME as ROOT
from lit_rl.run.study.seeds import run
from scripts.ablation import draw

PPO_ENTROPY = {"start": 0.5, "end": 0.02}  # low: self-play with it circles, which opponents may cure
WAYS = ("self-play", "past", "pfsp", "exploiters", "oracle")
LEDUC = "envs.leduc_poker"
ALGORITHMS = {"PPO": ("leduc_ppo", "kuhn_ppo"), "R-NaD": ("leduc_rnad", "kuhn_rnad_1m")}  # for Leduc, for others
AVERAGED = 200  # policies of a run that are averaged


class AveragePolicy(L.Callback):
    """Leave in <run>/average.json the NashConv of the average of the exported policies, that of iteration t weighing t.

    Args:
        every: iterations from one that counts to the next.
    """

    def __init__(self, every: int):
        self.every = int(every)
        self.tables, self.weights = [], []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            self.tables.append(policy_table(pl_module.export_policy(), trainer.datamodule.tree))
            self.weights.append(trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tree = trainer.datamodule.tree
        found = tree.evaluate(tree.average(self.tables, self.weights)).nash_conv
        replace_file(Path(trainer.log_dir) / "average.json", json.dumps({"nash_conv": found}).encode())


def decisions_per_iteration(config: dict) -> float:
    """The mean over the run, num_steps following its schedule if it has one."""
    data = config["data"]["init_args"]
    for callback in config["trainer"]["callbacks"]:
        arguments = callback.get("init_args", {}) if isinstance(callback, dict) else {}
        if arguments.get("target") == "data.num_steps":
            ends = arguments["schedule"]["init_args"]
            return data["num_envs"] * (ends["start"] + ends["end"]) / 2
    return data["num_envs"] * data["num_steps"]


def config_of(algorithm: str, way: str, args: argparse.Namespace) -> str:
    """One run of the study, as YAML."""
    name = ALGORITHMS[algorithm][args.game != LEDUC]
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    config["data"]["init_args"]["game"] = args.game
    trainer = config["trainer"]
    if algorithm == "PPO":
        for callback in trainer["callbacks"]:
            if isinstance(callback, dict) and callback["init_args"].get("target") == "model.entropy_coef":
                flat = {"class_path": "Constant", "init_args": {"value": args.entropy}}
                falling = callback["init_args"]["schedule"] | {"init_args": PPO_ENTROPY}
                callback["init_args"]["schedule"] = falling if args.entropy is None else flat
    share = args.exploiter_share if way == "exploiters" else 0.0
    decisions = args.decisions * (1 - share)
    if args.learner_decisions is not None:  # of a game for two in a league the learner makes half
        own = 1.0 if way == "self-play" else (1 + args.self_play_share) / 2
        decisions = args.learner_decisions / own
    iterations = max(args.exploiters + 1, round(decisions / decisions_per_iteration(config)))
    trainer |= {"max_epochs": iterations, "check_val_every_n_epoch": iterations}
    if args.entropy is not None:
        config["model"]["init_args"]["ema_decay"] = None
        average = {"every": max(1, iterations // AVERAGED)}
        trainer["callbacks"].append({"class_path": "scripts.league_study.AveragePolicy", "init_args": average})
    if way == "self-play":
        return yaml.safe_dump(config, sort_keys=False)
    pfsp = {"matchmaker": "pfsp", "matchmaker_options": {"weighting": "hard", "power": 2.0}}
    data = config["data"]["init_args"] | ({"matchmaker": "uniform"} if way == "past" else pfsp)
    config["data"] = {"class_path": "LeagueDataModule", "init_args": data | {"self_play_share": args.self_play_share}}
    every = max(1, iterations // args.snapshots)
    callbacks = [{"class_path": "Snapshot", "init_args": {"every": every, "recent": 5, "spaced": 5}}]
    turn = iterations // (args.exploiters + 1) + 1  # so that none comes at the very end
    if way == "exploiters":
        each = args.decisions * share / args.exploiters
        theirs = yaml.safe_load((ROOT / "configs" / "leduc_exploiter.yaml").read_text())
        epochs = max(1, round(each / decisions_per_iteration(theirs)))
        spawner = {
            "config": str(ROOT / "configs" / "leduc_exploiter.yaml"), "every": turn, "mode": "inline",
            "threshold": 0.0, "start": args.start, "keep": args.exploiters,
            "arguments": [f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}"],
        }  # fmt: skip
        callbacks.append({"class_path": "ExploiterSpawner", "init_args": spawner})
    if way == "oracle":
        callbacks.append({"class_path": "OracleExploiter", "init_args": {"every": turn, "keep": args.exploiters}})
    trainer["callbacks"] = [*trainer["callbacks"], *callbacks]
    return yaml.safe_dump(config, sort_keys=False)


def measure(algorithm: str, way: str, seed: int, args: argparse.Namespace) -> dict:
    """Summary of one run with its exploiters, finished before or now: the folder is named after its config's digest."""
    text = config_of(algorithm, way, args)
    name = f"{algorithm} {way}"
    folder = args.folder / name.replace(" ", "_") / hashlib.sha256(text.encode()).hexdigest()[:12]
    done = sorted((folder / f"seed_{seed}").glob("version_*/summary.json"))
    if not done:
        config = folder / "config.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(text)
        run(str(config), seed, folder, ["--trainer.enable_progress_bar", "false"])
        done = sorted((folder / f"seed_{seed}").glob("version_*/summary.json"))
    summary = json.loads(done[-1].read_text())
    jobs = [json.loads(path.read_text()) for path in sorted(done[-1].parent.glob("exploiters/*/job.json"))]
    if failed := [job["reason"] for job in jobs if job["state"] == "failed"]:
        raise SystemExit(f"{name}, seed {seed}: an exploiter failed: {failed[0]}; see {done[-1].parent}")
    summary["total_decisions"] = summary["decisions"] + sum(job["decisions"] for job in jobs)
    average = done[-1].parent / "average.json"
    summary["average"] = json.loads(average.read_text())["nash_conv"] if average.exists() else None
    summary["registered"] = sum(job["state"] == "registered" for job in jobs)
    summary["shares"] = [job["share"] for job in jobs]
    found = f"  {summary['registered']}/{len(jobs)} exploiters registered" if jobs else ""
    if summary["average"] is not None:
        found = f"  average {summary['average']:.4f}{found}"
    print(f"{name:<20} seed {seed}  NashConv {summary['nash_conv']:.4f}  {summary['seconds']:.0f} s{found}", flush=True)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default=LEDUC, help="for two players; others than Leduc as configs/kuhn_*.yaml")
    parser.add_argument("--entropy", type=float, help="PPO's, fixed; averages are measured")
    parser.add_argument("--learner_decisions", type=int, help="instead of --decisions: those to learn from")
    parser.add_argument("--decisions", type=int, default=10_000_000, help="of a run and its exploiters together")
    parser.add_argument("--seeds", type=int, nargs="+", default=[61, 62, 63, 64, 65])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="ways to choose opponents")
    parser.add_argument("--self_play_share", type=float, default=0.5, help="of the games of all but self-play")
    parser.add_argument("--snapshots", type=int, default=50, help="over a run; ten are in play")
    parser.add_argument("--exploiters", type=int, default=5, help="over a run")
    parser.add_argument("--exploiter_share", type=float, default=0.4, help="of all decisions")
    parser.add_argument("--start", choices=("scratch", "main"), default="main", help="where exploiters begin")
    parser.add_argument("--folder", type=Path, default=Path("runs/league_study"))
    parser.add_argument("--out", type=Path, default=Path("runs/league_study/league_study.png"))
    args = parser.parse_args()
    names = [(algorithm, way) for algorithm in args.algorithms for way in args.only]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {name: [pool.submit(measure, *name, seed, args) for seed in args.seeds] for name in names}
        summaries = {" ".join(name): [job.result() for job in group] for name, group in jobs.items()}
    inside = 1 - 2 ** (1 - len(args.seeds))
    print(f"\n{'':<24} {'median':>8} {'worst':>8} {'decisions':>12}   {100 * inside:.3g} % interval of the median")
    results = {name: [s["nash_conv"] for s in group] for name, group in summaries.items()}
    for name, group in summaries.items():
        if group[0]["average"] is not None:
            results |= {f"{name}, average": [s["average"] for s in group]}
            summaries = summaries | {f"{name}, average": group}
    for name, values in results.items():
        total = statistics.median(s["total_decisions"] for s in summaries[name])
        interval = f"[{min(values):.4f}, {max(values):.4f}]"
        print(f"{name:<24} {statistics.median(values):>8.4f} {max(values):>8.4f} {total:>12,.0f}   {interval}")
    budget = f"{args.decisions:,} decisions in all"
    if args.learner_decisions is not None:
        budget = f"{args.learner_decisions:,} decisions to learn from"
    draw(results, f"{args.game.split('.')[-1]}, {budget}, {len(args.seeds)} seeds", args.out)
    print(args.out)


if __name__ == "__main__":
    main()
