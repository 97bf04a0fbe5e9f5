"""``python -m neuroformer``: the command line, where its entry point is not on the path."""

from neuroformer.cli import main

raise SystemExit(main())
