"""Simulate trials with a trained model: python generate.py --run runs/demo [key.sub=value ...]"""

import sys

from neuroformer.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
