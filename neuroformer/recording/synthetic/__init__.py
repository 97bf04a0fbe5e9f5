"""Built-in recordings with known truth, made from a seed in seconds."""

from __future__ import annotations

from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.synthetic.cohort import COHORT_SHA256, CohortParameters, cohort
from neuroformer.recording.synthetic.lif import HUBS_SHA256, HubParameters, hubs
from neuroformer.recording.synthetic.parameters import DemoParameters
from neuroformer.recording.synthetic.periodic import INPUTS_SHA256, InputParameters, inputs
from neuroformer.recording.synthetic.population import POPULATION_SHA256, PopulationParameters, population
from neuroformer.recording.synthetic.shared import SHARED_SHA256, SharedParameters, shared
from neuroformer.recording.synthetic.v1 import DEMO_SHA256, SPLIT_PERIOD, demo

__all__ = [
    "COHORT_SHA256",
    "DEMO_SHA256",
    "HUBS_SHA256",
    "INPUTS_SHA256",
    "POPULATION_SHA256",
    "SHARED_SHA256",
    "SPLIT_PERIOD",
    "CohortParameters",
    "DemoParameters",
    "HubParameters",
    "InputParameters",
    "PopulationParameters",
    "SharedParameters",
    "cohort",
    "demo",
    "hubs",
    "inputs",
    "population",
    "shared",
    "synthetic",
]


def synthetic(name: str, seed: int = 0, **overrides) -> Recording:
    """A built-in recording by name: "synthetic:cohort", "synthetic:demo" (or "demo" for short), "synthetic:hubs", "synthetic:inputs",
    "synthetic:population", "synthetic:shared".

    Raises
    ------
    RecordingError
        Unknown name or parameter; the message lists the known ones.
    """
    known = {"cohort": cohort, "demo": demo, "hubs": hubs, "inputs": inputs, "population": population, "shared": shared}
    make = known.get(name.removeprefix("synthetic:"))
    if make is None:
        raise RecordingError(f"no built-in recording '{name}'; known: {', '.join('synthetic:' + k for k in known)}")
    return make(seed, **overrides)
