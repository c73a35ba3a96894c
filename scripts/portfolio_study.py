"""Whether several references help where the last entropy is low and PPO cycles, on Leduc: equal decisions, equal seeds.

    python scripts/portfolio_study.py --seeds 101 102 103 104 105 --only "magnet 1" "magnets 1" --against "magnet 1"

Every variant is configs/leduc_rnad.yaml with entropy down to 0.02 and the overlay below, named after its reference and
its reference_coef, which is tuned per reference on other seeds (configs/LOG.md); the rest is as in scripts/ablation.py.

    magnet          one moving magnet, rate 0.005
    portfolio       the magnet and five earlier policies at least 300 iterations old, the closest by the batch's mean
    portfolio each  the same, the closest at each infostate on its own
    magnets         magnets of the rates 0.001, 0.005 and 0.02, the closest at each infostate
"""

from scripts.ablation import main, reference, schedule

MAGNET = {"class_path": "lit_rl.references.Magnet", "init_args": {"rate": 0.005}}
AGED = {"capacity": 5, "add_every": 300, "min_age": 300, "drop": "diverse", "main": MAGNET}
REFERENCES = {
    "magnet": reference("Magnet", rate=0.005),
    "portfolio": reference("Portfolio", distance="min", **AGED),
    "portfolio each": reference("Portfolio", distance="each", **AGED),
    "magnets": reference("Magnets", rates=[0.001, 0.005, 0.02]),
}


def variant(overlay: dict, alpha: float) -> dict:
    settings = overlay["model"]["init_args"] | {"reference_coef": alpha}
    return {
        "model": {"init_args": settings},
        "entropy": schedule("model.entropy_coef", "PowerLaw", start=0.5, end=0.02),
    }


VARIANTS = {
    f"{name} {alpha:g}": variant(overlay, alpha)
    for name, overlay in REFERENCES.items()
    for alpha in (0.5, 1.0, 2.0, 4.0)
}

if __name__ == "__main__":
    main(VARIANTS, "leduc_rnad", __doc__, study="portfolio_study")
