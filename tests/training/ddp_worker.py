"""One process of several; started by torch.distributed.run with a list of folders and settings."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from helpers import small_config, small_recording

from neuroformer.training import loop
from neuroformer.training.loop import Trainer
from neuroformer.training.stopping import Stopped
from neuroformer.training.train import train_several


def train_in(folder, settings):
    """One run, whose log has no row more where the machine is slow; where the settings name two recordings, the second has other units, and no frames."""
    loop.LONGEST_SILENCE_S = 1e9
    recs = [small_recording(seconds=60.0)]
    if settings.get("recordings"):
        recs.append(small_recording(1, num_units=4, seconds=40.0, frames=False))
        named = zip(recs, settings["recordings"], strict=True)
        recs = [replace(rec, name=one["name"]) for rec, one in named]
    settings = dict(settings)
    stop_at = settings.pop("stop_at", 0)
    config = small_config(**settings)
    if stop_at:
        stop(recs, config, folder, stop_at)
    train_several(recs, config, folder, progress=False, resume=bool(stop_at))


def stop(recs, config, folder, step):
    """The beginning of a run, which one process is asked to end."""
    advance = Trainer._advance

    def asked(self, pieces):
        self.signal = 15 if self.progress.step + 1 == step and self.fabric.global_rank == 1 else None
        advance(self, pieces)

    Trainer._advance = asked
    try:
        train_several(recs, config, folder, progress=False)
    except Stopped:
        return
    finally:
        Trainer._advance = advance
    raise AssertionError("it did not stop")


if __name__ == "__main__":
    for name, asked in json.loads(sys.argv[1]):
        train_in(Path(name), asked)
