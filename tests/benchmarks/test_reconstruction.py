"""Joint reconstruction: the decoder paints what it should, likeness is counted as said, and ways are paired."""

import json

import numpy as np
import torch
from helpers import small_config, small_model, small_recording

from benchmarks.__main__ import main
from benchmarks.science import reconstruction
from neuroformer.comparison.responses import moments_of


def test_patches_come_back_to_their_places():
    model, prepared = small_model(small_recording(), small_config(targets=[], loss={}))
    decoder = reconstruction.PixelDecoder(model).double()
    batch = prepared.builder(prepared.windows("train")[:4])
    read, true = reconstruction.read_features(model, batch), reconstruction.last_frames(model, batch)
    assert decoder(read, true.shape[1:]).shape == true.shape
    with torch.no_grad():
        for p in decoder.parameters():
            p.zero_()
        decoder.paint[-1].bias.fill_(2.0)
    painted = decoder(read, true.shape[1:])
    torch.testing.assert_close(painted, torch.full_like(painted, 2.0))  # overlaps are averaged, not added


def test_each_way_trains_what_it_says():
    model, prepared = small_model(small_recording(), small_config(targets=[], loss={}))
    decoder, batch = reconstruction.PixelDecoder(model).double(), prepared.builder(prepared.windows("train")[:8])
    for way, (neurons, pixels) in reconstruction.WAYS.items():
        model.zero_grad()
        decoder.zero_grad()
        reconstruction.loss(model, decoder, batch, neurons, pixels).backward()
        assert (model.frames.readout.where.weight.grad is not None) == (way != "pixels")
        assert (decoder.paint[0].weight.grad is not None) == (way != "neurons")
        assert model.frames.encoder.filter.weight.grad is not None


def test_counting_without_correction_finds_likeness_in_noise():
    rec = small_recording(seconds=200.0)
    moments = moments_of(small_model(rec, small_config(targets=[], loss={}))[1], "test")
    rng = np.random.default_rng(0)
    network = rng.normal(size=(len(moments), 300))
    neurons = rng.normal(size=(len(moments), 20))
    neurons[:, :5] += 3 * network[:, :5]
    found = reconstruction.alike(network, neurons, moments)
    assert found["alike"] == 1 and found["alike_by_chance"] > 0.95
    assert 0.2 <= found["alike_corrected"] <= 0.35


def test_the_study(tmp_path, capsys):
    few = ["recording.options={num_movies: 4, num_trials: 8, trial_s: 12, num_units: 8}", "train.steps=2"]
    command = ["reconstruction", "--seeds", "1", "--run", str(tmp_path), *few]
    assert main(command) == 0
    assert "alike_corrected" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0  # from the folder
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["against"]["bits_per_spike"] == "neurons" and result["against"]["ssim"] == "pixels"
    assert "ssim" not in result["scores"]["neurons"] and "unit_r" not in result["scores"]["pixels"]
