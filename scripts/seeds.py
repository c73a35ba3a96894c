"""Run a config over several seeds and print each NashConv, the median and the worst: how a number in a header is made.

    python scripts/seeds.py configs/leduc_ppo.yaml --seeds 11 12 13 14 15 --jobs 2 [-- --model.clip 0.2 ...]

Each run is one process with one torch thread; `--jobs` of them run side by side. What follows `--` goes to `litrl fit`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(config: str, seed: int, folder: Path, extra: list[str]) -> dict:
    """One training; returns its summary.json with the last and the best NashConv."""
    command = [
        sys.executable, "-m", "lit_rl", "fit", "--config", config, "--seed_everything", str(seed),
        "--trainer.default_root_dir", str(folder / f"seed_{seed}"), *extra,
    ]  # fmt: skip
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"seed {seed} failed with exit code {result.returncode}:\n{result.stderr[-2000:]}")
    newest = max(
        (folder / f"seed_{seed}").glob("version_*/summary.json"), key=lambda p: int(p.parent.name.split("_")[1])
    )
    return json.loads(newest.read_text())


def main() -> None:
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML for litrl fit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"), help="where the run folders go")
    args = parser.parse_args(own)
    folder = args.folder / Path(args.config).stem
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(run, args.config, seed, folder, extra) for seed in args.seeds]
        print(f"{'seed':>6} {'NashConv':>10} {'best':>10} {'decisions':>12} {'seconds':>8}")
        summaries = []
        for seed, job in zip(args.seeds, jobs, strict=True):
            s = job.result()
            summaries.append(s)
            best = s.get("best_nash_conv", float("nan"))
            print(
                f"{seed:>6} {s['nash_conv']:>10.5f} {best:>10.5f} {s['decisions']:>12,} {s['seconds']:>8.0f}",
                flush=True,
            )
    values = [s["nash_conv"] for s in summaries]
    print(
        f"{summaries[0]['algorithm']} on {summaries[0]['game']}, exported policy at the end, {len(values)} seeds: "
        f"NashConv median {statistics.median(values):.5f}, worst {max(values):.5f}, best seed {min(values):.5f}; "
        f"{statistics.median(s['seconds'] for s in summaries):.0f} s (median)"
    )


if __name__ == "__main__":
    main()
