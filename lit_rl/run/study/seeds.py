"""The `litrl seeds` command: a config over several seeds, its median and its worst. So a number in a header is made.

    litrl seeds configs/leduc_ppo.yaml --seeds 11 12 13 14 15 --jobs 2 [-- --model.clip 0.2 ...]

Each run is one process with one torch thread; `--jobs` of them run side by side. What follows `--` goes to `litrl fit`.
Prints the headline of each, the median and the worst, and draws <folder>/<config>/seeds.png.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.own_code import HOME
from lit_rl.run.study.compare import draw
from lit_rl.run.study.door import guarded
from lit_rl.run.study.runs import Group, Run, group, read_run, worst


def fit_command(*arguments: str) -> list[str]:
    """`litrl fit` in this Python."""
    return [sys.executable, "-m", "lit_rl", "fit", *arguments]


def fit_environment() -> dict[str, str]:
    """One torch thread, and this lit-rl whatever is installed."""
    python_path = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}


def newest_version(folder: Path, holding: str) -> Path | None:
    """<folder>/version_<n> with the largest n that has a file of that name."""
    found = [path.parent for path in folder.glob(f"version_*/{holding}")]
    return max(found, key=lambda path: int(path.name.removeprefix("version_")), default=None)


def train(config: str, seed: int, folder: Path, extra: list[str]) -> Path:
    """One training in a process of its own; returns its run folder.

    Raises:
        ArtefactError: it failed; says what it said last.
    """
    root = folder / f"seed_{seed}"
    arguments = ["--config", config, "--seed_everything", str(seed), "--trainer.default_root_dir", str(root), *extra]
    result = subprocess.run(fit_command(*arguments), env=fit_environment(), capture_output=True, text=True)
    finished = newest_version(root, "summary.json")
    if result.returncode != 0 or finished is None:
        said = result.stderr.strip().splitlines()[-1:] or ["it left no summary.json"]
        raise ArtefactError(f"seed {seed} failed with exit code {result.returncode}: {said[0]}")
    return finished


def run(config: str, seed: int, folder: Path, extra: list[str]) -> dict:
    """One training; returns its summary.json with the last and the best NashConv."""
    return json.loads((train(config, seed, folder, extra) / "summary.json").read_text())


def line(seed: int, run: Run, metric: str) -> str:
    best = run.summary.get("best_" + metric.removeprefix("eval/").replace("/", "_"))
    best = f"{best:.5f}" if isinstance(best, float) else "-"
    seconds = run.seconds or float("nan")
    return f"{seed:>6} {run.final(metric):>10.5f} {best:>10} {run.decisions:>12,.0f} {seconds:>8.0f}"


def verdict(found: Group) -> str:
    values = found.finals()
    bad = worst(found.metric, values)
    good = min(values) if bad == max(values) else max(values)
    return (
        f"{found.runs[0].algorithm} on {found.game}, exported policy at the end, {len(values)} seeds: "
        f"{found.metric.removeprefix('eval/')} median {statistics.median(values):.5f}, worst {bad:.5f}, best seed "
        f"{good:.5f}; {statistics.median(run.seconds or 0.0 for run in found.runs):.0f} s (median)"
    )


def command_line() -> argparse.ArgumentParser:
    """What `litrl seeds` takes before the `--`."""
    parser = argparse.ArgumentParser(
        "litrl seeds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a YAML for litrl fit, or the name of a packaged one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"), help="where the run folders go")
    return parser


@guarded
def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    own, extra = sys.argv[1:] if args is None else args, []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    parsed = command_line().parse_args(own)
    if parsed.jobs < 1:
        raise ConfigError(f"--jobs {parsed.jobs}: needs at least 1")
    if twice := [seed for seed in parsed.seeds if parsed.seeds.count(seed) > 1]:
        raise ConfigError(f"--seeds: {twice[0]} is listed twice, and would count twice")
    folder, finished, metric = parsed.folder / Path(parsed.config).stem, [], None
    pool = ThreadPoolExecutor(parsed.jobs)
    try:
        jobs = [pool.submit(train, parsed.config, seed, folder, extra) for seed in parsed.seeds]
        for seed, job in zip(parsed.seeds, jobs, strict=True):
            finished.append(read_run(job.result()))
            if metric is None:
                metric = group(finished)[0].metric
                print(f"{'seed':>6} {metric.split('/')[-1]:>10} {'best':>10} {'decisions':>12} {'seconds':>8}")
            print(line(seed, finished[-1], metric), flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    found = Group(group(finished, metric)[0].label, metric, finished)
    print(verdict(found))
    draw([found], folder / "seeds.png")
    print(f"picture: {folder / 'seeds.png'}")
