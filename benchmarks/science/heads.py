"""The heads that all features are read with: linear ones from scikit-learn, a small MLP; for raw spectra a CNN; for
redshifts also either network with a probability in each bin."""

import warnings

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn

from spectral_tokenizer.configuration_spectral_tokenizer import TargetConfig
from spectral_tokenizer.targets_spectral_tokenizer import BinnedTarget


BINS = " + bins"  # behind the name of a network: it gives probabilities, as the package's own redshift heads do
WEIGHTED = "linear, by S/N"  # a linear head in whose fit faint spectra count less
PRODUCTS = "products, by S/N"  # the same on the features and the products of their leading axes
NUM_AXES = 24
NUM_BINS = 512
TOLERANCE = 0.05  # within which probabilities are added to decide between peaks, in the target's unit
VALIDATION_SHARE = 0.15
RIDGE_STRENGTHS = np.logspace(1, 5, 9)
#: Signal-to-noise below which a spectrum counts less, as its square. Above, what makes a linear head wrong is not noise.
WEIGHT_SCALE = 60.0
LOGISTIC_STRENGTHS = (1e-3, 1e-2, 1e-1)
STELLAR_PIXELS = 3000  # spectra longer than this are of GALAH or APOGEE


def held_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to fit on and places to choose strengths and stopping by."""
    order = np.random.default_rng([seed, 5]).permutation(count)
    held = max(1, round(VALIDATION_SHARE * count))
    return order[held:], order[:held]


class Standardised:
    """Features of zero mean and unit variance; constant ones become zero, and nothing goes beyond 10 sigma."""

    def __init__(self, features: np.ndarray):
        self.scaler = StandardScaler().fit(features)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.clip(self.scaler.transform(features), -10.0, 10.0).astype(np.float32)


def regression(kind: str, features: np.ndarray, targets: np.ndarray, seed: int = 0, snr: np.ndarray | None = None):
    """Fit targets (objects, targets) and return a function of features. kind: "linear", "mlp" or "cnn", or one of the
    latter two with `BINS` for a single target; or `WEIGHTED` or `PRODUCTS`, by the objects' signal-to-noise `snr`.

    Predictions stay within the range of the targets that were fitted: beyond it a head only extrapolates.
    """
    if kind == PRODUCTS:
        widen = with_products(features)
        predict = regression(WEIGHTED, widen(features), targets, seed, snr)
        return lambda given: predict(widen(given))
    scale = Standardised(features)
    center, width = targets.mean(axis=0), targets.std(axis=0) + 1e-12
    low, high = targets.min(axis=0), targets.max(axis=0)
    inputs, outputs = scale(features), ((targets - center) / width).astype(np.float32)
    fit, held = held_out(len(inputs), seed)
    if kind.endswith(BINS):
        predict = binned(kind.removesuffix(BINS), inputs, targets, fit, held, seed)
        return lambda given: np.clip(predict(scale(given)), low, high)
    if kind in ("linear", WEIGHTED):
        weight = snr_weight(snr) if kind == WEIGHTED else None
        model = best_ridge(inputs, outputs, fit, held, weight)
        predict = model.predict
    else:
        net = network(kind, inputs.shape[1], outputs.shape[1], seed)
        predict = fit_network(net, inputs, outputs, fit, held, nn.SmoothL1Loss(beta=0.5), seed)
    return lambda given: np.clip(predict(scale(given)).reshape(len(given), -1) * width + center, low, high)


def snr_weight(snr: np.ndarray) -> np.ndarray:
    """What a spectrum of some signal-to-noise counts, 0 to 1: see `WEIGHT_SCALE`."""
    return 1.0 / (1.0 + (WEIGHT_SCALE / snr) ** 2)


def with_products(features: np.ndarray):
    """A function that puts behind features all products of two of their `NUM_AXES` leading principal axes."""
    pca = PCA(min(NUM_AXES, *features.shape), svd_solver="randomized", random_state=0).fit(features)
    first, second = np.triu_indices(pca.n_components_)

    def widen(given: np.ndarray) -> np.ndarray:
        along = pca.transform(given) / np.sqrt(np.maximum(pca.explained_variance_, 1e-30))
        return np.concatenate([given, along[:, first] * along[:, second]], axis=1)

    return widen


def binned(kind: str, inputs: np.ndarray, targets: np.ndarray, fit: np.ndarray, held: np.ndarray, seed: int):
    """Fit a network that gives the probability of each of `NUM_BINS` values of one target (objects, 1)."""
    target = bins_over(targets)
    net = network(kind, inputs.shape[1], target.num_outputs, seed)

    def cost(outputs: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return target.negative_log_likelihood(outputs, known[:, 0]).mean()

    predict = fit_network(net, inputs, targets.astype(np.float32), fit, held, cost, seed)
    return lambda given: target.predict(torch.from_numpy(predict(given))).value.numpy()[:, None]


def bins_over(targets: np.ndarray) -> BinnedTarget:
    """`NUM_BINS` bins over all targets."""
    ends = [float(targets.min()) - TOLERANCE, float(targets.max()) + TOLERANCE]
    settings = TargetConfig(distribution="bins", num_bins=NUM_BINS, tolerance=TOLERANCE, range=ends)
    return BinnedTarget("target", settings)


def best_ridge(inputs, outputs, fit, held, weight: np.ndarray | None = None) -> Ridge:
    """Ridge regression with the strength that is best on the places held out, fitted on all; by `weight` (objects,), in
    units of its mean."""

    def fitted(places: np.ndarray, strength: float) -> Ridge:
        own = None if weight is None else weight[places] / weight[places].mean()
        return Ridge(alpha=strength, solver="cholesky").fit(inputs[places], outputs[places], own)

    def error(strength: float) -> float:
        # One target comes back without its axis.
        predicted = fitted(fit, strength).predict(inputs[held]).reshape(len(held), -1)
        # Judged by the same weights: of faint spectra alone, the strength that flattens everything is the best.
        own = None if weight is None else weight[held]
        return np.average(np.abs(predicted - outputs[held]).mean(axis=1), weights=own)

    return fitted(np.arange(len(inputs)), min(RIDGE_STRENGTHS, key=error))


def classification(kind: str, features: np.ndarray, classes: np.ndarray, seed: int = 0):
    """Fit classes (objects,) and return a function of features that gives classes. kind: as for `regression`."""
    scale = Standardised(features)
    inputs, known = scale(features), np.unique(classes)
    fit, held = held_out(len(inputs), seed)
    if len(known) == 1 or len(np.unique(classes[fit])) == 1:
        return lambda given: np.full(len(given), known[0])
    if kind == "linear":
        model = best_logistic(inputs, classes, fit, held)
        return lambda given: model.predict(scale(given))
    position = np.searchsorted(known, classes)
    net = network(kind, inputs.shape[1], len(known), seed)
    predict = fit_network(net, inputs, position, fit, held, nn.CrossEntropyLoss(), seed)
    return lambda given: known[predict(scale(given)).argmax(axis=1)]


def best_logistic(inputs, classes, fit, held) -> LogisticRegression:
    """Logistic regression with the strength that is best on the places held out, fitted on all."""
    scores = []
    with warnings.catch_warnings():
        # Stopped early is one more way of being regularised, and minutes faster.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in LOGISTIC_STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(inputs[fit], classes[fit])
            scores.append(model.score(inputs[held], classes[held]))
        best = LOGISTIC_STRENGTHS[int(np.argmax(scores))]
        return LogisticRegression(C=best, max_iter=200, tol=1e-3).fit(inputs, classes)


def network(kind: str, num_inputs: int, num_outputs: int, seed: int) -> nn.Module:
    """A fresh network: "mlp", one hidden layer of 256; "cnn", see `convolutional`."""
    torch.manual_seed(seed)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(num_inputs, 256), nn.GELU(), nn.Dropout(0.2), nn.Linear(256, num_outputs))
    if kind == "cnn":
        return convolutional(num_inputs, num_outputs)
    raise ValueError(f"head: expected linear, mlp or cnn, found: {kind!r}")


def convolutional(num_inputs: int, num_outputs: int) -> nn.Module:
    """For whole spectra: three numbers (labels) are read as astroNN's APOGEE network does it (Leung & Bovy 2019: 2 and
    4 filters of 8 pixels (here 9, to be centred), pooled by 4, dense layers of 196 and 96); classes and redshifts
    after GaSNet (Zhong et al. 2022, 2024): convolutions and pooling in turn, then a dense layer."""
    if num_inputs > STELLAR_PIXELS:
        layers = [nn.Conv1d(1, 2, 9, padding="same"), nn.ReLU(), nn.Conv1d(2, 4, 9, padding="same"), nn.ReLU()]
        layers += [nn.MaxPool1d(4), nn.Flatten(), nn.Linear(num_inputs // 4 * 4, 196), nn.ReLU(), nn.Dropout(0.2)]
        layers += [nn.Linear(196, 96), nn.ReLU(), nn.Linear(96, num_outputs)]
    else:
        layers, size = [], num_inputs
        for channels_in, channels_out in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv1d(channels_in, channels_out, 7, padding="same"), nn.ReLU(), nn.MaxPool1d(4)]
            size //= 4
        layers += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(64 * size, 128), nn.ReLU(), nn.Linear(128, num_outputs)]
    return nn.Sequential(nn.Unflatten(1, (1, num_inputs)), *layers)


def fit_network(net, inputs, targets, fit, held, cost, seed: int, num_epochs: int = 40, patience: int = 6):
    """AdamW, stopped when the places held out get no better; returns a function of inputs."""
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets))
    steps = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    fit, held = torch.from_numpy(fit), torch.from_numpy(held)
    batch = int(np.clip(len(fit) // 16, 8, 128))
    best, best_weights, since = np.inf, None, 0
    for _ in range(num_epochs):
        net.train()
        for part in fit[torch.randperm(len(fit), generator=generator)].split(batch):
            steps.zero_grad()
            cost(net(inputs[part]), targets[part]).backward()
            steps.step()
        value = float(cost(answers(net, inputs[held]), targets[held]))
        since += 1
        if value < best:
            best, since = value, 0
            best_weights = {name: each.clone() for name, each in net.state_dict().items()}
        if since > patience:
            break
    net.load_state_dict(best_weights)
    return lambda given: answers(net, torch.from_numpy(given)).numpy()


@torch.no_grad()
def answers(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    net.eval()
    return torch.cat([net(part) for part in inputs.split(512)])
