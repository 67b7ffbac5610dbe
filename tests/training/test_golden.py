"""Ten deterministic steps. A refactor leaves the curve as it is; a change of numerics renews it.

Renew it with ``python -m tests.training.test_golden`` in a commit that says why.
"""

import json
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from tests.trainers import quiet_trainer
from tests.training.conftest import tiny_loader, tiny_module

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curve.json"
STEPS = 10


class Curve(Callback):
    """Collects what a run logs."""

    def __init__(self):
        self.values = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, value in trainer.callback_metrics.items():
            self.values.setdefault(name, []).append(float(value))


def loss_curve():
    curve = Curve()
    trainer = quiet_trainer(max_steps=STEPS, callbacks=[curve])
    trainer.fit(tiny_module(), tiny_loader())
    return curve.values


@pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)
def test_ten_steps_are_the_golden_ones():
    golden = json.loads(GOLDEN.read_text())
    found = loss_curve()
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        # The same machine repeats them exactly; other processors and versions round otherwise.
        assert found[name] == pytest.approx(values, rel=2e-3, abs=1e-4), name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(loss_curve(), indent=1) + "\n")
