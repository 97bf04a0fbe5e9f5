"""The rates that a model states itself are those of its windows, after the recorded past and no later spike."""

import dataclasses

import numpy as np
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.data.prepared import prepare
from neuroformer.data.windows import Windows
from neuroformer.generation.readout import readout_rates


def test_rates_along_a_block():
    net, p = small_model(small_recording(num_trials=10), small_config(split={"by": "trials"}))
    blocks = p.split.blocks["test"]
    rates = readout_rates(net, p, blocks, batch_size=7)
    assert [x.shape for x in rates] == [(400, 6)] * len(blocks)
    with torch.no_grad():
        windows = Windows(blocks[1:2, 0], np.array([45]))
        one = net(p.builder(windows)).observed.log_rate_WBU[0].numpy()
    assert np.allclose(rates[1][45:50], one, atol=1e-10)
    # spikes from a moment on change no rate up to the end of its window
    start = p.split.segments[blocks[1, 0], 0] + 2.0
    units = p.rec.spike_units.copy()
    units[p.rec.spike_times >= start] = 0
    changed = prepare(dataclasses.replace(p.rec, spike_units=units), p.config, p.normalization)
    other = readout_rates(net, changed, blocks)
    assert np.allclose(other[1][:205], rates[1][:205]) and not np.allclose(other[1][205:], rates[1][205:])
