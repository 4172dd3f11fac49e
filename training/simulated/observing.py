"""What each survey makes of objects: flux on its pixels, noise, sky, blemishes, calibration errors; the truth is kept.

The surveys' noise, sky, bad pixels and calibration are those of the package's simulator, for whole batches. Brightness
follows from a signal-to-noise that is drawn, log-uniform, for each spectrum: per pixel, the median over the spectrum.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from spectral_tokenizer.data.simulation import apogee, desi, galah, sdss
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT

from .populations import OBSERVATION, Objects
from .random import Random
from .spectrographs import Spectrograph, environment, spectrograph


SIGNAL_TO_NOISE = {"sdss": (1.0, 100.0), "desi": (1.0, 100.0), "galah": (5.0, 200.0), "apogee": (5.0, 200.0)}
#: Limits of the three bands that results are reported in.
BANDS = {"sdss": (5.0, 20.0), "desi": (5.0, 20.0), "galah": (20.0, 70.0), "apogee": (20.0, 70.0)}
FRAMES = {"sdss": "heliocentric", "desi": "barycentric", "galah": "barycentric", "apogee": "rest"}
NO_FLUX = 1e-6
#: Largest rms of the response that `vary_response` draws.
RESPONSE = {"galah": 0.25, "apogee": 0.12}
RESPONSE_DRAW = 11  # of the random numbers, beside `populations.OBSERVATION`


@dataclass
class Observation:
    """Spectra of one survey on its native pixels, before normalisation.

    Attributes:
        flux, ivar, truth: (spectra, pixels) float32; ivar = 0 is unusable. `truth` is the noiseless flux, with the
            calibration's errors in it: what an ideal smoothing would find.
        wavelength: (pixels,) or (spectra, pixels) float64, vacuum Angstrom.
        window: (spectra, 2) first pixel and number of pixels that the survey's file has.
        snr: (spectra,) median flux / sigma over usable pixels, as drawn.
    """

    survey: str
    objects: Objects
    flux: Tensor
    ivar: Tensor
    truth: Tensor
    wavelength: Tensor
    window: Tensor
    snr: Tensor


def observe(
    objects: Objects,
    survey: str,
    seed: int = 0,
    snr: Tensor | None = None,
    device: str = "cpu",
    limits: tuple[float, float] | None = None,
) -> Observation:
    """Observe objects with a survey.

    Args:
        objects: Of a `Population`.
        survey: "sdss", "desi", "galah" or "apogee".
        seed: Another seed is another observation of the same objects: noise, sky, blemishes, brightness.
        snr: (objects,) signal-to-noise per pixel; drawn where not given, log-uniform between `limits`.
        limits: The survey's `SIGNAL_TO_NOISE` where not given.
    """
    if survey not in OBSERVERS:
        raise ValueError(f"survey: expected one of {sorted(OBSERVERS)}, found: {survey!r}")
    random = Random(seed, OBSERVATION, list(OBSERVERS).index(survey), int(objects.index[0]), device=device)
    if snr is None:
        low, high = np.log(limits or SIGNAL_TO_NOISE[survey])
        snr = random.uniform(len(objects), low=low, high=high).exp()
    return OBSERVERS[survey](objects, spectrograph(survey, str(device)), snr.to(device).float(), random)


def optical_flux(objects: Objects, spec: Spectrograph, random: Random, widest: float) -> Tensor:
    """Noiseless flux on the pixels in units of its mean; `widest` as `vary_resolution` takes it."""
    flux = torch.empty(len(objects), spec.num_pixels, device=spec.device)
    for source, grid, places, parameters in objects.members:
        flux[places.to(spec.device)] = spec.resolve(source.spectra(parameters), grid, objects.redshift[places])
    return vary_resolution(random, spec, flux / flux.mean(dim=1, keepdim=True).clamp_min(NO_FLUX), widest)


def observe_sdss(objects: Objects, spec: Spectrograph, snr: Tensor, random: Random) -> Observation:
    """Half SDSS, half BOSS spectrographs, whose files begin and end at varying pixels."""
    count, wavelength = len(objects), spec.wavelength_array
    sky, telluric = environment("sdss", str(spec.device))
    is_boss = random.numpy.random(count) < 0.5
    first = np.where(is_boss, random.numpy.integers(35510, 35565, count), random.numpy.integers(35785, 35833, count))
    length = np.where(is_boss, random.numpy.integers(4574, 4626, count), random.numpy.integers(3769, 3873, count))
    start = first - round(sdss.FIRST_LOGLAM / sdss.STEP)
    window = torch.as_tensor(np.stack([start, np.minimum(length, spec.num_pixels - start)], axis=1))
    pixel = torch.arange(spec.num_pixels, device=spec.device)
    begin, end = (each.to(spec.device)[:, None] for each in (window[:, 0], window.sum(1)))
    is_covered = (pixel >= begin) & (pixel < end)
    flux = optical_flux(objects, spec, random, 0.2) * smooth_error(random, spec, count, 0.03)
    base = np.stack([np.interp(wavelength, sdss.NOISE_NODES, sdss.NOISE[name]) for name in ("SDSS", "BOSS")])
    base = random.device_tensor(base)[torch.as_tensor(is_boss, device=spec.device).long()]
    level, lines = (
        random.device_tensor(np.where(is_boss, each["BOSS"], each["SDSS"]))[:, None]
        for each in (sdss.SKY_LEVEL, sdss.SKY_NOISE)
    )
    truth, sigma = photon_noise(flux, snr, base, level, lines * sky, telluric.clamp_min(0.3), is_covered)
    truth = truth * (1.0 + 0.02 * random.normal(count, 1) * (1.0 - telluric))
    flux = noisy(random, truth, sigma, sky, size=0.6, rate=1e-4)
    is_bad = bad_pixels(random, spec, count, 0.004, 0.04)
    is_bad |= pixel < begin + random.integers(0, 12, count, 1)
    garbage = torch.where(random.uniform(count, 1) < 0.5, 0.0, 40.0 * random.normal(*flux.shape))
    flux = torch.where(is_bad, garbage, flux)
    ivar = torch.where(is_covered & ~is_bad, sigma**-2, 0.0)
    return Observation("sdss", objects, flux, ivar, truth, spec.wavelength, window, snr)


def observe_desi(objects: Objects, spec: Spectrograph, snr: Tensor, random: Random) -> Observation:
    """Three arms in dark time."""
    count = len(objects)
    sky, telluric = environment("desi", str(spec.device))
    flux = optical_flux(objects, spec, random, 0.06) * smooth_error(random, spec, count, 0.02)
    flux = flux * (1.0 + segment_values(spec, 0.006 * random.normal(count, len(desi.ARMS))))
    base = np.concatenate([np.interp(d.wavelength, *desi.NOISE[arm]) for arm, d in desi.detectors().items()])
    base = random.device_tensor(base) * (0.28 * random.normal(count, 1)).exp()
    truth, sigma = photon_noise(flux, snr, base, desi.SKY_LEVEL, desi.SKY_NOISE * sky, telluric.clamp_min(0.25))
    truth = truth * (1.0 + 0.02 * random.normal(count, 1) * (1.0 - telluric))
    flux = noisy(random, truth, sigma, sky, size=0.5, rate=1e-4)
    is_bad = bad_pixels(random, spec, count, 0.003, 0.03)
    flux = torch.where(is_bad, 60.0 * random.normal(*flux.shape), flux)
    ivar = torch.where(is_bad, 0.0, sigma**-2)
    return Observation("desi", objects, flux, ivar, truth, spec.wavelength, whole(spec, count), snr)


def observe_apogee(objects: Objects, spec: Spectrograph, snr: Tensor, random: Random) -> Observation:
    """Combined spectra at rest; chips' edges and sky lines stand where the star's velocity and the Earth's put
    them."""
    count, stars = len(objects), labelled(objects, "apogee")
    normalised, continuum = stars[0].apogee_flux(spec, stars[3])
    is_known = normalised.isfinite()
    normalised = vary_resolution(random, spec, torch.where(is_known, normalised, 1.0), 0.15)
    truth = normalised * continuum * smooth_error(random, spec, count, 0.015)
    truth = truth / truth.mean(dim=1, keepdim=True) * 10.0 ** random.uniform(count, 1, low=1.3, high=3.8)
    velocity = objects.redshift.to(spec.device).float()[:, None] * SPEED_OF_LIGHT
    shift = velocity - random.uniform(count, 1, low=-28.0, high=28.0)
    fixed = (*environment("apogee", str(spec.device)), *chip_edges(str(spec.device)))
    sky, telluric, edge, in_chip = (shifted(each, shift, apogee.LOG_STEP * np.log(10.0)) for each in fixed)
    level = truth.mean(dim=1, keepdim=True)
    relative = (truth / level * 0.9 + 0.1).sqrt() / telluric.clamp_min(0.3) * edge * (1.0 + 40.0 * sky).sqrt()
    is_usable = (in_chip > 0.999) & is_known
    sigma = for_median(snr, truth, relative * level, is_usable)
    sigma = torch.maximum(sigma, 0.003 * truth)
    flux = noisy(random, truth, sigma, sky, size=0.8, rate=8e-5, shift=0.5)
    is_bad = bad_pixels(random, spec, count, 0.008, 0.03)
    flux = torch.where(is_bad & (random.uniform(*flux.shape) < 0.3), 3.0 * flux, flux)
    ivar = torch.where(is_usable & ~is_bad, sigma**-2, 0.0)
    flux = torch.where(is_usable, flux, 0.0)
    return Observation("apogee", objects, flux, ivar, truth, spec.wavelength, whole(spec, count), snr)


def observe_galah(objects: Objects, spec: Spectrograph, snr: Tensor, random: Random) -> Observation:
    """Four CCDs on grids that differ from star to star, each brought to a median of 1, as the reader does."""
    count, stars = len(objects), labelled(objects, "galah")
    steps = torch.tensor([step for _, step, _ in galah.CCDS.values()], device=spec.device)
    offset = torch.stack([0.25 * random.normal(count, 4), 2e-4 * random.normal(count, 4) * steps], dim=2).double()
    pixel = torch.arange(galah.NUM_PIXELS, dtype=torch.float64, device=spec.device).repeat(4)
    moved = torch.repeat_interleave(offset, galah.NUM_PIXELS, dim=1)
    wavelength = spec.wavelength + moved[:, :, 0] + moved[:, :, 1] * pixel
    flux = vary_resolution(random, spec, stars[0].galah_flux(spec, stars[3], objects.redshift, offset), 0.15)
    truth = flux * galah_blaze(spec) * smooth_error(random, spec, count, 0.03)
    bary = random.uniform(count, 1, low=-28.0, high=28.0)
    sky, telluric = environment("galah", str(spec.device))
    telluric = read_at(spec, telluric, wavelength * (1.0 - bary / SPEED_OF_LIGHT))
    truth = truth * (1.0 + 0.05 * segment_values(spec, random.normal(count, 4)) * (1.0 - telluric))
    throughput = torch.tensor([value for _, _, value in galah.CCDS.values()], device=spec.device)
    truth = truth / segment_values(spec, torch.cat([median(part) for part in truth.split(spec.segment_lengths, 1)], 1))
    relative = (truth.clamp_min(0.0) * 0.85 + 0.15).sqrt() / telluric.clamp_min(0.08)
    relative = relative / segment_values(spec, throughput.sqrt().expand(count, 4))
    sigma = for_median(snr, truth, relative, torch.ones_like(truth, dtype=torch.bool))
    flux = noisy(random, truth, sigma, torch.zeros_like(sky), size=0.0, rate=8e-5)
    is_bad = random.uniform(*flux.shape) < 8e-4
    is_bad |= (telluric < 0.15) & (random.uniform(*flux.shape) < 0.5)
    # What the reader calls unusable: no flux, or an error above it.
    is_bad |= (flux <= 0.0) | (sigma > flux)
    is_bad |= (
        segment_values(
            spec, (random.uniform(count, 4) < torch.tensor([0.0, 0.0, 0.0, 0.08], device=spec.device)).float()
        )
        > 0
    )
    ivar = torch.where(is_bad, 0.0, sigma**-2)
    return Observation("galah", objects, flux, ivar, truth, wavelength, whole(spec, count), snr)


def galah_blaze(spec: Spectrograph) -> Tensor:
    """(pixels,) what the grating sends to each place of a CCD. Reduction 6.0 leaves it in, data release 3 has it
    out."""
    return galah.blaze_at(spec.positions())


@cache
def chip_edges(device: str) -> tuple[Tensor, Tensor]:
    """Noise towards the ends of APOGEE's chips, and 1 on a chip, (pixels,) in the observatory's frame."""
    wavelength = apogee.wavelength_grid()
    edge = 1.0 + sum(2.0 * np.exp(-np.abs(wavelength - end) / 4.0) for chip in apogee.CHIPS for end in chip)
    in_chip = np.any([(wavelength > low) & (wavelength < high) for low, high in apogee.CHIPS], axis=0)
    return tuple(torch.as_tensor(each, dtype=torch.float32, device=device) for each in (edge, in_chip))


OBSERVERS = {"sdss": observe_sdss, "desi": observe_desi, "galah": observe_galah, "apogee": observe_apogee}


def labelled(objects: Objects, survey: str):
    """The one source of stars with labels behind objects."""
    if len(objects.members) != 1 or not hasattr(objects.members[0][0], f"{survey}_flux"):
        raise ValueError(f"{survey} observes stars with labels: draw the objects from the domain 'stars'")
    return objects.members[0]


def whole(spec: Spectrograph, count: int) -> Tensor:
    """The window of files that all have the same pixels."""
    return torch.tensor([[0, spec.num_pixels]]).expand(count, 2)


def segment_values(spec: Spectrograph, values: Tensor) -> Tensor:
    """(spectra, segments) -> (spectra, pixels)."""
    return torch.cat([part.expand(-1, n) for part, n in zip(values.split(1, 1), spec.segment_lengths)], dim=1)


def smooth_error(random: Random, spec: Spectrograph, count: int, size: float) -> Tensor:
    """A smooth multiplicative error about 1 per segment: random cubics with an rms of about `size`."""
    parts = []
    for length in spec.segment_lengths:
        position = np.linspace(-1.0, 1.0, length)
        basis = np.polynomial.legendre.legvander(position, 3).T * np.array([0.5, 0.6, 0.5, 0.4])[:, None]
        parts.append(1.0 + size * random.normal(count, 4) @ random.device_tensor(basis))
    return torch.cat(parts, dim=1)


def vary_response(seen: Observation, seed: int = 0) -> Observation:
    """The same observation through optics and a reduction of other response: a smooth factor for each segment.

    For training. The surveys' real continua differ by more than calibration errors: with APOGEE's many ways of
    combining visits, with GALAH's blaze or, here in half of its spectra, without it. A model that only knows one shape
    takes others for signal.
    """
    if seen.survey not in RESPONSE:
        return seen
    index = list(OBSERVERS).index(seen.survey)
    random = Random(seed, RESPONSE_DRAW, index, int(seen.objects.index[0]), device=seen.flux.device)
    count = len(seen.flux)
    size = RESPONSE[seen.survey] * random.uniform(count, 1)
    spec = spectrograph(seen.survey, str(seen.flux.device))
    factor = (1.0 + size * (smooth_error(random, spec, count, 1.0) - 1.0)).clamp_min(0.2)
    if seen.survey == "galah":
        blaze = galah_blaze(spec)
        factor = factor * torch.where(random.uniform(count, 1) < 0.5, blaze.median() / blaze, 1.0)
    return replace(seen, flux=seen.flux * factor, truth=seen.truth * factor, ivar=seen.ivar / factor.square())


def photon_noise(flux, snr, base, level, lines, telluric, is_covered=None) -> tuple[Tensor, Tensor]:
    """Scale flux to its signal-to-noise and give sigma per pixel: the sky's continuum (`base`), its `lines` in units of
    that variance, the object's own photons."""
    variance = base.square() * (1.0 + lines) / telluric
    own = base.square() / telluric
    if not torch.is_tensor(level):
        level = torch.full((len(flux), 1), level, device=flux.device)
    covered = flux if is_covered is None else torch.where(is_covered, flux, torch.nan)
    truth = flux * level_for(snr, covered, own, level, variance)
    return truth, (variance + own * truth.clamp_min(0.0) / level).sqrt()


def level_for(snr: Tensor, flux: Tensor, own: Tensor, level: Tensor, variance: Tensor) -> Tensor:
    """The factor on `flux` at which the median of flux / sigma is `snr`, where sigma^2 = variance + own flux / level.

    Each pixel has one factor at which it reaches `snr`, and flux / sigma grows with the factor: so the median pixel's
    factor is the answer.
    """
    flux, own, variance = (each[:, ::8] for each in (flux, own, variance))
    square, photon = snr[:, None] ** 2, own / level
    needed = 0.5 * (square * photon + (square**2 * photon**2 + 4.0 * square * variance).sqrt())
    factor = torch.where(flux > NO_FLUX, needed / flux.clamp_min(NO_FLUX), torch.inf)
    return torch.where(flux.isnan(), torch.nan, factor).nanmedian(dim=1, keepdim=True).values


def median(values: Tensor) -> Tensor:
    """(spectra, pixels) -> (spectra, 1), the lower of the two in the middle; none may be NaN."""
    place = (values.shape[1] - 1) // 2
    if values.is_cpu:  # numpy takes a tenth of the time
        return torch.from_numpy(np.partition(values.numpy(), place, axis=1)[:, place : place + 1])
    return values.median(1, keepdim=True).values


def for_median(snr: Tensor, truth: Tensor, relative: Tensor, is_usable: Tensor) -> Tensor:
    """Sigma proportional to `relative` with a median of truth / sigma of `snr` over usable pixels."""
    ratio = torch.where(is_usable, truth / relative, torch.nan)[:, ::4]
    return relative * (ratio.nanmedian(dim=1, keepdim=True).values / snr[:, None])


def noisy(random, truth, sigma, sky, size: float, rate: float, shift: float = 1.0) -> Tensor:
    """Truth with Gaussian noise, what imperfect sky subtraction leaves, and unflagged hits of cosmic rays.

    `size` is the rms residual at a strong sky line in units of the noise there, one amplitude and one shift for the
    whole spectrum; `rate` is hits per pixel, exponential with a mean of 25 sigma.
    """
    count, pixels = truth.shape
    flux = torch.addcmul(truth, sigma, random.normal(count, pixels))
    if size:
        profile = torch.tanh(3.0 * sky)
        slope = torch.gradient(profile, dim=-1)[0]
        residual = random.normal(count, 1) * profile + 2.0 * shift * random.normal(count, 1) * slope
        flux = flux + size * sigma * residual
    hits = int(random.numpy.poisson(rate * count * pixels))
    row, pixel = random.integers(0, count, hits), random.integers(0, pixels - 1, hits)
    height = 25.0 * random.exponential(hits) * sigma[row, pixel]
    flux.index_put_((row, pixel), height, accumulate=True)
    flux.index_put_((row, pixel + 1), 0.6 * random.uniform(hits) * height, accumulate=True)
    return flux


def bad_pixels(random: Random, spec: Spectrograph, count: int, rate: float, block: float) -> Tensor:
    """True where the detector is dead: runs of 1 to 4 pixels and, now and then in a segment, a block of 20 to 150."""
    starts = int(random.numpy.poisson(rate * count * spec.num_pixels / 2.5))
    row, pixel = random.integers(0, count, starts), random.integers(0, spec.num_pixels, starts)
    length = random.integers(1, 5, starts)
    is_bad = torch.zeros(count, spec.num_pixels, dtype=torch.bool, device=spec.device)
    for step in range(4):
        chosen = length > step
        is_bad[row[chosen], (pixel[chosen] + step).clamp_max(spec.num_pixels - 1)] = True
    place = torch.arange(spec.num_pixels, device=spec.device)
    for part in spec.slices():
        begin = random.integers(part.start, part.stop, count, 1)
        end = begin + random.integers(20, 150, count, 1) * (random.uniform(count, 1) < block)
        is_bad |= (place >= begin) & (place < end.clamp_max(part.stop))
    return is_bad


def vary_resolution(random: Random, spec: Spectrograph, flux: Tensor, widest: float) -> Tensor:
    """A line spread function that differs from fibre to fibre: its variance grows by up to `widest` pixels squared."""
    share = random.uniform(len(flux), 1, high=widest)
    parts = []
    for part in flux.split(spec.segment_lengths, dim=1):
        beside = torch.cat([part[:, :1], part, part[:, -1:]], dim=1)  # a detector ends where it ends
        parts.append(torch.lerp(part, 0.5 * (beside[:, :-2] + beside[:, 2:]), share))
    return torch.cat(parts, dim=1)


def read_at(spec: Spectrograph, values: Tensor, wavelength: Tensor) -> Tensor:
    """Values (pixels,) on the nominal grid, read at other wavelengths (spectra, pixels), segment by segment: both in
    vacuum Angstrom of the observatory's frame; level beyond a segment's ends."""
    parts = []
    for part in spec.slices():
        nominal, inside = spec.wavelength[part], values[part]
        asked = wavelength[:, part].contiguous()
        index = torch.searchsorted(nominal, asked).clamp(1, len(nominal) - 1) - 1
        fraction = (asked - nominal[index]) / (nominal[index + 1] - nominal[index])
        parts.append(torch.lerp(inside[index], inside[index + 1], fraction.clamp(0.0, 1.0).float()))
    return torch.cat(parts, dim=1)


def shifted(values: Tensor, velocity: Tensor, log_step: float) -> Tensor:
    """Values (pixels,) on a grid of the Earth's frame, read at a grid that moves by `velocity` km/s (spectra, 1)."""
    pixels = velocity / SPEED_OF_LIGHT / log_step
    position = torch.arange(len(values), device=values.device) + pixels
    position = position.clamp(0.0, len(values) - 1.001)
    index = position.long()
    lower, upper = (values.index_select(0, (index + step).flatten()).view_as(position) for step in (0, 1))
    return torch.lerp(lower, upper, position - index)
