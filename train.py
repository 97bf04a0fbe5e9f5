"""Train a model: python train.py --config configs/demo.yaml [key.sub=value ...]"""

import sys

from neuroformer.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
