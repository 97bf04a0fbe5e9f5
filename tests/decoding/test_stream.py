"""Streaming gives the values of the finished recording, in whatever pieces the data come."""

import dataclasses
import time

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import predict_targets
from neuroformer.decoding.stream import StreamDecoder


@pytest.mark.parametrize("lookahead", [0.0, 0.05])
def test_a_stream_decodes_what_the_recording_says(lookahead):
    rec = small_recording(seconds=40.0)
    targets = [{"name": "speed", "samples": 5}, {"name": "gaze"}]
    config = small_config(window={"lookahead": lookahead, "target_past": 0.2}, targets=targets)
    model, prepared = small_model(rec, config)
    count = 60
    windows = Windows(np.zeros(count, int), np.arange(count) * 5)
    wanted = predict_targets(model, prepared, windows)
    stream = StreamDecoder(model, prepared.normalization)
    pupil, frames, got = rec.behavior["pupil"], rec.frames, []
    rng, now = np.random.default_rng(0), 0.0
    while len(got) < count:
        last, now = now, now + rng.uniform(0.001, 0.13)
        for t, v in zip(pupil.times, pupil.values, strict=True):
            if last <= t < now:
                stream.push_input("pupil", t, v)
        for t, i in zip(frames.times, frames.index, strict=True):
            if last <= t < now:
                stream.push_frame(t, frames.images[i])
        new = (rec.spike_times >= last) & (rec.spike_times < now)
        stream.push_spikes(rec.spike_times[new], rec.spike_units[new])
        got += stream.advance(now)
    assert len(stream._times) < 60 * 0.6 * 8 * 2  # old spikes are forgotten
    for name in wanted:
        ours = np.concatenate([w.values[name] for w in got[:count]])
        np.testing.assert_allclose(ours, wanted[name][: len(ours)], atol=1e-5)
    np.testing.assert_allclose(got[1].times, 0.05 + np.arange(1, 6) * 0.01)


def test_mistakes_are_named():
    rec = small_recording(frames=False)
    config = small_config(window={"frames": 0.0}, loss={"contrast": []})
    model, prepared = small_model(rec, config)
    stream = StreamDecoder(model, prepared.normalization)
    stream.push_spikes([0.1], [0])
    with pytest.raises(ValueError, match="none before 0.1 s; got 0.05 s"):
        stream.push_spikes([0.05], [0])
    with pytest.raises(ValueError, match="unit 6 is not one of the model's 6"):
        stream.push_spikes([0.2], [6])
    with pytest.raises(ValueError, match="'speed' is not an input of the model; it has: pupil"):
        stream.push_input("speed", 0.1, 1.0)
    no_targets, prepared = small_model(rec, dataclasses.replace(config, targets=()))
    with pytest.raises(ValueError, match="the model has no target"):
        StreamDecoder(no_targets, prepared.normalization)


def test_the_benchmark_agrees_with_itself(monkeypatch):
    from neuroformer.bench import decode, reference_size

    small = lambda frames=False: small_config(
        window={"frames": 0.0, "past": 0.05}, loss={"contrast": []}, inputs=[], targets=[]
    )
    monkeypatch.setattr(reference_size, "config", small)
    began = time.perf_counter()
    result = decode.run(threads=1, num_windows=900, num_streamed=20)
    elapsed = time.perf_counter() - began
    assert result["checked"] and (result["windows"], result["streamed_windows"]) == (900, 20)
    assert 0 < result["batch_seconds"] + 5 * result["stream_ms_median"] / 1e3 < elapsed
    assert result["stream_ms_median"] <= result["stream_ms_p99"]

    def off(*args):
        took, streamed = stream(*args)
        return took, {name: values + 1e-3 for name, values in streamed.items()}

    stream = decode._stream
    monkeypatch.setattr(decode, "_stream", off)
    assert not decode.run(threads=1, num_windows=900, num_streamed=20)["checked"]
