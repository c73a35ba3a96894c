"""What each part of PPO + moving magnet brings on Leduc: equal decisions, equal seeds, one part changed at a time.

    python scripts/ablation.py --seeds 51 52 53 54 55 --jobs 2 [--config configs/leduc_rnad.yaml] [--only magnet ...]

Every variant is configs/leduc_rnad.yaml with the overlay below. Finished runs are kept in --folder and not repeated, so
the study can be stopped and gone on with; delete the folder to begin anew. Prints the median and the worst NashConv of
the exported policy and the interval of the median: the smallest and the largest of n seeds hold it with probability
1 - 2^(1 - n), whatever the distribution (n = 5: 94 %). With --against the same is printed of each variant's ratio to
that one, seed by seed. Draws all seeds. scripts/mix_study.py is such a study of another algorithm.
"""

import argparse
import hashlib
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from lit_rl.run.figures import new_figure, save_figure
from lit_rl.run.own_code import HOME as ROOT
from lit_rl.run.study.seeds import run


def schedule(target: str, kind: str, **args) -> dict:
    return {
        "class_path": "ScalarSchedule",
        "init_args": {"target": target, "schedule": {"class_path": kind, "init_args": args}},
    }


def fixed_entropy(value: float) -> dict:
    """No reference, and the entropy coefficient stays what it is."""
    return {
        "model": {"init_args": {"reference_coef": 0.0}},
        "entropy": schedule("model.entropy_coef", "Constant", value=value),
    }


def reference(name: str, **args) -> dict:
    return {"model": {"init_args": {"reference": {"class_path": f"lit_rl.references.{name}", "init_args": args}}}}


SINGLE = {"class_path": "lit_rl.references.Refreshed", "init_args": {"every": 100}}
VARIANTS = {  # the overlay over the config; "entropy" stands for the callback that schedules it, "callbacks" are added
    "plain PPO": fixed_entropy(0.0),
    "fixed entropy 0.05": fixed_entropy(0.05),
    "fixed entropy 0.2": fixed_entropy(0.2),
    "annealed entropy": {"model": {"init_args": {"reference_coef": 0.0}}},
    "single reference": reference(SINGLE["class_path"].split(".")[-1], **SINGLE["init_args"]),
    "magnet": {},
    "portfolio recent": reference("Portfolio", capacity=5, add_every=100, drop="recent", main=SINGLE),
    "portfolio best": reference("Portfolio", capacity=5, add_every=100, drop="best", main=SINGLE),
    "portfolio diverse": reference("Portfolio", capacity=5, add_every=100, drop="diverse", main=SINGLE),
    "portfolio mixture": reference("Portfolio", capacity=5, add_every=100, distance="mixture", main=SINGLE),
}


def with_overlay(base: Path, overlay: dict, iterations: int | None) -> str:
    """The config with the overlay in place, and its schedules over so many iterations, as YAML."""
    config = yaml.safe_load(base.read_text())
    if iterations is not None:
        config["trainer"] |= {"max_epochs": iterations, "check_val_every_n_epoch": iterations}
    model, init_args = overlay.get("model", {}), config["model"]["init_args"]
    settings = {  # of groups, only what the overlay names
        name: init_args.get(name, {}) | value if name == "minibatches" else value
        for name, value in model.get("init_args", {}).items()
    }
    config["model"] |= model | {"init_args": init_args | settings}
    config["data"]["init_args"] |= overlay.get("data", {})
    if "entropy" in overlay:
        others = [
            c for c in config["trainer"]["callbacks"]
            if not (isinstance(c, dict) and c["init_args"].get("target") == "model.entropy_coef")
        ]  # fmt: skip
        config["trainer"]["callbacks"] = [*others, overlay["entropy"]]
    config["trainer"]["callbacks"] += overlay.get("callbacks", [])
    return yaml.safe_dump(config, sort_keys=False)


def measure(name: str, seed: int, args: argparse.Namespace) -> dict:
    """The summary of one run, see `finished`."""
    summary = finished(name, with_overlay(args.config, args.variants[name], args.iterations), seed, args.folder)
    print(f"{name:<20} seed {seed}  NashConv {summary['nash_conv']:.4f}  {summary['seconds']:.0f} s", flush=True)
    return summary


def finished(name: str, text: str, seed: int, folder: Path) -> dict:
    """The summary of a run of the config `text`, finished before or now: the text's digest names its folder."""
    folder = folder / name.replace(" ", "_") / hashlib.sha256(text.encode()).hexdigest()[:12]
    done = sorted((folder / f"seed_{seed}").glob("version_*/summary.json"))
    if done:
        return json.loads(done[0].read_text())
    config = folder / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return run(str(config), seed, folder, [])


def draw(results: dict[str, list[float]], title: str, path: Path) -> None:
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(8, 0.5 + 0.42 * len(results))
    axes = figure.subplots()
    for y, values in enumerate(reversed(results.values())):
        median = statistics.median(values)
        axes.plot([min(values), max(values)], [y, y], color="#1f5fa8", linewidth=2, alpha=0.35)
        axes.plot(values, [y] * len(values), "o", color="#1f5fa8", markersize=5, alpha=0.7)
        axes.plot(median, y, "|", color="#b3541e", markersize=16, markeredgewidth=2.5)
        axes.annotate(f"{median:.3f}", (median, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(results)), list(reversed(results)))
    axes.set(xscale="log", xlabel="NashConv of the exported policy (chips per game); bar: median", title=title)
    axes.set_ylim(-0.5, len(results) - 0.3)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.grid(True, axis="x", which="both", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


def main(
    variants: dict = VARIANTS, config: str = "leduc_rnad", description: str = __doc__, study: str = "ablation"
) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / f"{config}.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33, 34, 35])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--iterations", type=int, help="instead of the config's; its schedules shrink with them")
    parser.add_argument("--only", nargs="+", choices=variants, default=list(variants), help="variants to run")
    parser.add_argument("--against", choices=variants, help="variant to compare with, seed by seed")
    parser.add_argument("--folder", type=Path, default=Path("runs") / study)
    parser.add_argument("--out", type=Path, default=Path("runs") / study / f"{study}.png")
    args = parser.parse_args()
    args.variants = variants
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {name: [pool.submit(measure, name, seed, args) for seed in args.seeds] for name in args.only}
        summaries = {name: [job.result() for job in group] for name, group in jobs.items()}
    results = {name: [s["nash_conv"] for s in group] for name, group in summaries.items()}
    first = summaries[args.only[0]][0]
    print(f"\n{table(results, args.against)}")
    draw(results, f"{first['game']}, {first['decisions']:,} decisions, {len(args.seeds)} seeds", args.out)
    print(args.out)


def table(results: dict[str, list[float]], against: str | None = None) -> str:
    """Median, worst and interval of each variant, seed by seed in the same order, as text."""
    inside = 1 - 2 ** (1 - len(next(iter(results.values()))))
    lines = [f"{'variant':<20} {'median':>8} {'worst':>8}   {100 * inside:.3g} % interval of the median"]
    for name, values in results.items():
        line = f"{name:<20} {statistics.median(values):>8.4f} {max(values):>8.4f}"
        line += f"   [{min(values):.4f}, {max(values):.4f}]"
        if against is not None:
            ratios = [mine / theirs for mine, theirs in zip(values, results[against])]
            line += f"   x {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] of {against}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
