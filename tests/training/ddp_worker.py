"""One process of a two-process run; started by torch.distributed.run with a folder and settings."""

import json
import sys
from pathlib import Path

from helpers import small_config, small_recording

from neuroformer.training.train import train

if __name__ == "__main__":
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    train(small_recording(seconds=60.0), small_config(**settings), folder, progress=False)
