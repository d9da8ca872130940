"""A run to interrupt: ``python interrupted.py FOLDER SECONDS``, which its third step takes."""

from __future__ import annotations

import signal
import sys
import time

from support import Classifier, loader, make_model

from gradlab import training


class Slow(Classifier):
    def training_step(self, batch):
        sys.stdout.write(".")
        sys.stdout.flush()
        end = time.monotonic() + (float(sys.argv[2]) if self.trainer.step == 2 else 0.0)
        while time.monotonic() < end:  # a step that a signal does not cut short
            time.sleep(0.01)
        return super().training_step(batch)


# What starts the tests may have SIGINT ignored, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
trainer = training.Trainer(max_epochs=100, checkpoint_dir=sys.argv[1], enable_progress_bar=False)
trainer.fit(make_model(Slow), loader())
sys.stdout.write(f"fit returned after step {trainer.step}, {trainer.stop_reason}\n")
