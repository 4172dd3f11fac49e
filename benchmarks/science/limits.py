"""What no unbiased method can do better: the Cramer-Rao bound of stellar labels.

The likelihood of a spectrum is Gaussian with the known ivar. Its derivatives by the labels come from the simulator
itself (central differences); everything else that the simulator varies and an observer does not know is let free:
[alpha/M], rotation, extinction, velocity (GALAH), width of the line spread function, and a cubic per chip or CCD. Over
objects whose bounds differ, quoted as the tables quote errors: the median of |error| where each error is drawn from its own
Gaussian, which is less than 0.6745 times the median sigma. It knows no prior: where it is wider than the population's own
spread (low signal-to-noise), a regression may well be better.
"""

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import erf
from torch import Tensor

from training.simulated.observing import BANDS as SNR_LIMITS
from training.simulated.observing import Observation, labelled, observe
from training.simulated.spectrographs import Spectrograph, spectrograph

from .bench import Bench
from .scores import summary
from .tables import BANDS, LABELS, row


STEPS = {"teff": 20.0, "logg": 0.05, "fe_h": 0.02, "alpha_m": 0.02, "rotation": 0.3, "extinction": 0.05}
VELOCITY_STEP = 1e-6  # of v / c
NUM_CONTINUUM = 4  # Legendre polynomials per segment
REFERENCE = 100.0  # signal-to-noise that bounds are also quoted for


def limits(bench: Bench) -> list[dict]:
    """The Cramer-Rao bound of Teff, logg and [Fe/H], by survey and signal-to-noise, over the objects that `labels`
    tests on."""
    rows = []
    for survey in bench.surveys("stars"):
        seen = [
            observe(objects, survey, bench.seed, device=bench.device)
            for objects in bench.objects(survey, "test", bench.num_objects(survey, "test"))
        ]
        sigma = np.concatenate([cramer_rao(each) for each in seen])
        snr = np.concatenate([each.snr.cpu().numpy() for each in seen])
        band = (snr[:, None] >= np.array(SNR_LIMITS[survey])).sum(axis=1)
        scores = {}
        for column, name in enumerate(LABELS):
            bound = sigma[:, column]
            scores[f"{name}_mad"] = median_error(bound)
            for number, band_name in enumerate(BANDS):
                scores[f"{name}_mad_{band_name}_snr"] = median_error(bound[band == number])
            # The bound goes as 1 / (signal-to-noise): exactly so where the noise's shape does not change with it.
            scores[f"{name}_mad_at_snr_100"] = median_error(bound * snr / REFERENCE)
        rows.append(row("Cramer-Rao", "limit", summary([scores]), survey=survey))
    return rows


def median_error(sigma: np.ndarray) -> float:
    """Median of |error| over objects whose errors have these spreads, (objects,): where half of the probability is
    within."""
    if not len(sigma):
        return float("nan")
    within = lambda error: np.mean(erf(error / (np.sqrt(2.0) * sigma))) - 0.5  # noqa: E731
    return float(brentq(within, 0.0, sigma.max()))  # at which all have 0.68


def cramer_rao(seen: Observation) -> np.ndarray:
    """(spectra, labels) sigma of the bound."""
    spec = spectrograph(seen.survey, str(seen.flux.device))
    derivatives = [derivative(seen, spec, name) for name in STEPS]
    if seen.survey == "galah":
        derivatives.append(derivative(seen, spec, "velocity"))
    truth = seen.truth.double()
    derivatives.append(0.5 * (truth.roll(1, 1) + truth.roll(-1, 1)) - truth)
    stacked = torch.stack(derivatives, dim=1)
    continuum = truth[:, None] * continuum_basis(spec)
    jacobian = torch.cat([stacked, continuum], dim=1)
    weighted = jacobian * seen.ivar.double().sqrt()[:, None]
    fisher = weighted @ weighted.mT
    # Scaled to a unit diagonal first: Kelvin and polynomials differ by orders of magnitude.
    scale = fisher.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    unit = fisher * scale[:, :, None] * scale[:, None, :] + 1e-10 * torch.eye(fisher.shape[1], device=fisher.device)
    covariance = torch.linalg.inv(unit).diagonal(dim1=1, dim2=2) * scale**2
    return covariance[:, : len(LABELS)].sqrt().cpu().numpy()


def derivative(seen: Observation, spec: Spectrograph, name: str) -> Tensor:
    """(spectra, pixels) of the true flux by a label, at the calibration that each spectrum has."""
    upper, lower = (noiseless(seen, spec, name, sign) for sign in (1.0, -1.0))
    step = VELOCITY_STEP if name == "velocity" else STEPS[name]
    relative = (upper - lower) / (0.5 * (upper + lower)).clamp_min(1e-6) / (2.0 * step)
    return torch.where(relative.isfinite(), seen.truth.double() * relative, 0.0)


def noiseless(seen: Observation, spec: Spectrograph, name: str, sign: float) -> Tensor:
    """Flux of the objects with one label moved by a step."""
    source, _, _, parameters = labelled(seen.objects, seen.survey)
    redshift = seen.objects.redshift
    if name == "velocity":
        redshift = redshift + sign * VELOCITY_STEP
    else:
        parameters = {**parameters, name: parameters[name] + sign * STEPS[name]}
    if seen.survey == "apogee":
        flux, continuum = source.apogee_flux(spec, parameters)
        return (flux * continuum).double()
    # The pixels' own grid: what an observation has beyond the nominal one.
    pixel = torch.arange(spec.num_pixels // 4, device=spec.device, dtype=torch.float64)
    moved = (seen.wavelength - spec.wavelength).unflatten(1, (4, -1))
    growth = (moved[:, :, -1] - moved[:, :, 0]) / pixel[-1]
    offset = torch.stack([moved[:, :, 0], growth], dim=2)
    return source.galah_flux(spec, parameters, redshift, offset).double()


def continuum_basis(spec: Spectrograph) -> Tensor:
    """(segments x polynomials, pixels)."""
    basis = np.zeros((len(spec.segment_lengths) * NUM_CONTINUUM, spec.num_pixels))
    for number, part in enumerate(spec.slices()):
        position = np.linspace(-1.0, 1.0, part.stop - part.start)
        rows = slice(number * NUM_CONTINUUM, (number + 1) * NUM_CONTINUUM)
        basis[rows, part] = np.polynomial.legendre.legvander(position, NUM_CONTINUUM - 1).T
    return torch.as_tensor(basis, device=spec.device)
