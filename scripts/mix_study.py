"""What the actor's share brings ARMAC on Leduc: fixed shares against a scheduler, equal decisions, equal seeds.

    python scripts/mix_study.py --seeds 51 52 53 54 55 --jobs 2 [--config configs/kuhn_armac.yaml] [--against "fixed 0"]

Every variant is configs/leduc_armac.yaml with the overlay below; the rest is as in scripts/ablation.py.
"""

from scripts.ablation import main, schedule


def fixed(mix_lambda: float) -> dict:
    return {"model": {"init_args": {"use_scheduler": False, "mix_lambda": mix_lambda}}}


def falling(start: float) -> dict:
    """From `start` to 0 over the run."""
    return fixed(start) | {"callbacks": [schedule("model.mix_lambda", "Linear", start=start, end=0.0)]}


def scheduled(utility: str = "Counterfactual", keys: dict | None = None, **args) -> dict:
    keys = keys or {"class_path": "lit_rl.armac.state_keys.InfostateKeys"}
    scheduler = {"class_path": "lit_rl.armac.mix_scheduler.MixScheduler", "init_args": args}
    utility = {"class_path": f"lit_rl.armac.mix_utility.{utility}"}
    return {
        "model": {"init_args": {"use_scheduler": True, "scheduler": scheduler, "utility": utility, "state_keys": keys}}
    }


TIERED = "lit_rl.armac.state_keys.TieredKeys"
MEDIUM = {"class_path": TIERED, "init_args": {"tier": "medium", "facts": "envs.leduc_poker.betting"}}
VARIANTS = {
    "fixed 0": fixed(0.0),
    "fixed 0.125": fixed(0.125),
    "fixed 0.25": fixed(0.25),
    "0.25 to 0": falling(0.25),
    "0.5 to 0": falling(0.5),
    "fixed 0.5": fixed(0.5),
    "fixed 0.75": fixed(0.75),
    "fixed 1": fixed(1.0),
    "discrete": scheduled(mode="discrete"),
    "continuous": scheduled(mode="continuous"),
    "discrete to 0.25": scheduled(mode="discrete", bins=[0.0, 0.125, 0.25], warmup_lambda=0.125),
    "discrete, medium": scheduled(mode="discrete", keys=MEDIUM),
    "discrete, hybrid": scheduled("Hybrid", mode="discrete"),
    "discrete, from 1": scheduled(mode="discrete", warmup_lambda=1.0, warmup_iterations=100),
}

if __name__ == "__main__":
    main(VARIANTS, "leduc_armac", __doc__, study="mix_study")
