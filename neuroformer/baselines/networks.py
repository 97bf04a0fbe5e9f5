"""Networks on the same counts: scikit-learn's multilayer perceptron, and a recurrent network.

Both are scored on the held-out stretch after so many updates; how many the final fit runs is chosen like any other
hyperparameter, up to where it does not get better.

Shape suffixes: V values, B count bins, U units, C columns, H hidden states, F features beside them.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import Tensor, nn

from neuroformer.baselines.features import Samples
from neuroformer.baselines.linear import Predict, Standard

UPDATES = (50, 100, 200, 400, 800, 1500)
BATCH = 128
MLP_GRID = tuple(
    {"hidden": hidden, "decay": decay} for hidden, decay in (((64,), 1.0), ((64,), 1e-2), ((128, 64), 1.0))
)
GRU_GRID = ({"hidden": 32, "dropout": 0.2}, {"hidden": 64, "dropout": 0.4})


class Network:
    """Trained batch by batch: after how many is a setting to choose from. A search ends where more of them, twice as many, are no
    better."""

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[int, np.ndarray]]:
        yield from ((updates, predict(held)) for updates, predict in self._train(train, kind, params))

    def fit(self, train: Samples, kind: str, params: dict, setting: int) -> Predict:
        return next(predict for updates, predict in self._train(train, kind, params) if updates == setting)

    def _train(self, train: Samples, kind: str, params: dict) -> Iterator[tuple[int, Predict]]:
        """The predictor after each number of ``UPDATES``."""
        raise NotImplementedError


class MlpMethod(Network):
    """One or two hidden layers on all lags of all units, Adam, weight decay."""

    name = "mlp"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def candidates(self, kind: str) -> list[dict]:
        return list(MLP_GRID)

    def _train(self, train: Samples, kind: str, params: dict) -> Iterator[tuple[int, Predict]]:
        scale = Standard(train)
        make = MLPClassifier if kind == "classification" else MLPRegressor
        model = make(
            hidden_layer_sizes=params["hidden"],
            alpha=params["decay"],
            learning_rate_init=2e-3,
            random_state=self.seed,
        )
        x = scale.x(train).astype(np.float32)
        rng = np.random.default_rng(self.seed)
        if kind == "classification":
            y, first = train.y_VC[:, 0], {"classes": np.unique(train.y_VC[:, 0])}
            predict: Predict = lambda s: np.asarray(model.predict(scale.x(s).astype(np.float32)))[:, None]
        else:
            y, first = scale.y(train), {}
            y = y[:, 0] if y.shape[1] == 1 else y
            predict = lambda s: scale.back(np.asarray(model.predict(scale.x(s).astype(np.float32))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for update, rows in enumerate(_batches(rng, len(x)), 1):
                model.partial_fit(x[rows], y[rows], **(first if update == 1 else {}))
                if update in UPDATES:
                    yield update, predict


def _batches(rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    """Rows of one update after another; each pass over the data in a new order."""
    done = 0
    while True:
        for rows in np.array_split(rng.permutation(size), -(-size // BATCH)):
            yield rows
            done += 1
            if done == UPDATES[-1]:
                return


class GruNetwork(nn.Module):
    """A GRU over count bins, read at its last state (both directions' last states with lookahead), with ``beside`` features
    more where there are any."""

    def __init__(self, num_units: int, hidden: int, outputs: int, both_ways: bool, dropout: float, beside: int = 0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(num_units, hidden, batch_first=True, bidirectional=both_ways)
        self.out = nn.Linear(hidden * (2 if both_ways else 1) + beside, outputs)

    def forward(self, x_VBU: Tensor, beside_VF: Tensor | None = None) -> Tensor:
        _, last = self.gru(self.dropout(x_VBU))
        last_VH = self.dropout(last.transpose(0, 1).flatten(1))
        return self.out(last_VH if beside_VF is None else torch.cat([last_VH, beside_VF], 1))


class GruMethod(Network):
    """A gated recurrent network over the bins: causal, or bidirectional where there is lookahead; AdamW, dropout."""

    name = "gru"

    def __init__(self, both_ways: bool, seed: int = 0):
        self.both_ways, self.seed = both_ways, seed

    def candidates(self, kind: str) -> list[dict]:
        return list(GRU_GRID)

    def _train(self, train: Samples, kind: str, params: dict) -> Iterator[tuple[int, Predict]]:
        classes = np.unique(train.y_VC[:, 0]) if kind == "classification" else None
        scale = Standard(train)
        shape = train.x_VBU.shape[1:]
        x_of = lambda s: torch.from_numpy(scale.x(s).astype(np.float32)).view(-1, *shape)
        x = x_of(train)
        if classes is None:
            y, outputs = torch.from_numpy(scale.y(train)).float(), train.y_VC.shape[1]
            loss = nn.functional.mse_loss
        else:
            y, outputs = torch.from_numpy(np.searchsorted(classes, train.y_VC[:, 0])), len(classes)
            loss = nn.functional.cross_entropy
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = GruNetwork(shape[1], params["hidden"], outputs, self.both_ways, params["dropout"])
            drawn = torch.get_rng_state()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)

        @torch.no_grad()
        def predict(samples: Samples) -> np.ndarray:
            model.eval()
            out = torch.cat([model(part) for part in x_of(samples).split(4096)]).numpy()
            return scale.back(out.astype(np.float64)) if classes is None else classes[out.argmax(1)][:, None]

        batches, done = _batches(np.random.default_rng(self.seed), len(x)), 0
        for mark in UPDATES:
            with torch.random.fork_rng():  # other folds are trained between two marks
                torch.set_rng_state(drawn)
                model.train()
                for rows in itertools.islice(batches, mark - done):
                    optimizer.zero_grad()
                    loss(model(x[rows]), y[rows]).backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                drawn, done = torch.get_rng_state(), mark
            yield mark, predict
