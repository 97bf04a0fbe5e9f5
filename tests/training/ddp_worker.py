"""One process of several; started by torch.distributed.run with a list of folders and settings."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from helpers import small_config, small_recording

from neuroformer.training.train import train_several


def train_in(folder, settings):
    """One run; where the settings name two recordings, the second has other units, and no frames."""
    recs = [small_recording(seconds=60.0)]
    if settings.get("recordings"):
        recs.append(small_recording(1, num_units=4, seconds=40.0, frames=False))
        named = zip(recs, settings["recordings"], strict=True)
        recs = [replace(rec, name=one["name"]) for rec, one in named]
    train_several(recs, small_config(**settings), folder, progress=False)


if __name__ == "__main__":
    for name, asked in json.loads(sys.argv[1]):
        train_in(Path(name), asked)
