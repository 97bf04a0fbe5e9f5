import sys

from neuroformer.cli import main

sys.exit(main())
