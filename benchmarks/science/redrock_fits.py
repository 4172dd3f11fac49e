"""redrock, DESI's redshift fitter, on the same DESI-like spectra (`pip install redrock`, not needed otherwise).

It fits its templates at every redshift, with the true resolution matrix of each arm, and so has all that DESI gives
it: it is the peer to beat. Most of these quasars, stars and half of these galaxies are combinations of its own
templates, which favours it; the forest's absorbers and the other half of the galaxies (E-MILES) are not.
"""

import contextlib
import io
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy import sparse

from spectral_tokenizer.data.simulation import desi
from training.simulated.observing import Observation, observe
from training.simulated.populations import KINDS, population
from training.simulated.template_files import STAR_TYPES

from .bench import BATCH, Bench
from .scores import redshift_scores, summary
from .shifts import fitted, num_epochs, readers, saved, told
from .tables import row


NUM_OBJECTS = {"tiny": 64, "small": 256, "full": 1024}
FAINT = (0.2, 3.0)  # signal-to-noise per pixel: where redshifts begin to fail, and where most of DESI's spectra are
REACH = 5  # pixels on either side that a resolution matrix covers
GALAXY_REDSHIFTS = 10.0 ** np.arange(np.log10(1.0 - 0.005), np.log10(1.0 + 1.7), 3e-4) - 1.0  # as redrock has them


def redrock(bench: Bench) -> list[dict]:
    """Redshifts of faint DESI-like spectra: what redrock finds, beside heads on features, on the same objects."""
    if bench.templates is None:
        raise ValueError("redrock needs the published templates: give their folder with --templates")
    count = NUM_OBJECTS.get(bench.budget.name, 64)
    rows = redrock_rows(bench, count)
    train = bench.probe_set("desi", "train", limits=FAINT)
    test = bench.probe_set("desi", "test", limits=FAINT).take(np.arange(count))
    targets = np.log1p(train.known["redshift"])[:, None]
    seconds = seconds_per_spectrum(bench)
    for name, fit_on, (given,) in bench.feature_pairs(train, [test]):
        for head in bench.heads(name, "redshift"):
            for kind in ("GALAXY", "QSO"):
                places, seen = (np.flatnonzero(each.known["kind"] == KINDS.index(kind)) for each in (train, test))
                found = []
                for number, fit, _ in bench.draws(len(places), 1, head):
                    predict = bench.fit(name, head, "redshift", fit_on[places[fit]], targets[places[fit]], number)
                    predicted = np.expm1(predict(given[seen])[:, 0])
                    found.append(redshift_scores(predicted, test.known["redshift"][seen]))
                about = {"seconds_per_spectrum": seconds[name]} if name in seconds else {}
                rows.append(row(name, head, summary(found), kind=kind, objects=str(count), **about))
    return rows + shift_rows(bench, count)


def shift_rows(bench: Bench, count: int) -> list[dict]:
    """The same objects by heads that read a shift of tokens: fitted to the same training spectra, and where a model's
    folder holds one, by that as it is."""
    rows = []
    for name, read in readers(bench).items():
        train = told(bench, read, "desi", "train", limits=FAINT)
        places = list(bench.draws(len(train), 1, "mlp"))
        heads = {"shift": [fitted(train, fit, number, num_epochs(bench), name) for number, fit, _ in places]}
        if own := saved(bench.given.get(name)):
            heads["shift, as saved"] = [own]
        for head, predictors in heads.items():
            found = {kind: [] for kind in KINDS}
            for predict in predictors:
                started = time.perf_counter()
                test = told(bench, read, "desi", "test", count, FAINT)
                predicted = predict(test)
                seconds = (time.perf_counter() - started) / count  # the simulator's included
                for kind, scores in found.items():
                    is_kind = test.known["kind"] == KINDS.index(kind)
                    scores.append(redshift_scores(predicted[is_kind], test.known["redshift"][is_kind]))
            about = {"objects": str(count), "seconds_per_spectrum": seconds}
            rows += [row(name, head, summary(scores), kind=kind, **about) for kind, scores in found.items()]
    return rows


def seconds_per_spectrum(bench: Bench) -> dict[str, float]:
    """Of each model, on the first of these spectra: what embedding takes here, where redrock has just run."""
    spectra, seconds = next(bench.batches("desi", "test", BATCH, FAINT)), {}
    for name, encoder in bench.encoders.items():
        encoder = getattr(encoder, "encoder", encoder)  # anew, where features are kept
        if callable(encoder):
            started = time.perf_counter()
            encoder(spectra)
            seconds[name] = (time.perf_counter() - started) / len(spectra)
    return seconds


def redrock_rows(bench: Bench, count: int) -> list[dict]:
    spectra = []
    for number in range(count // BATCH):
        objects = population("optical", bench.templates, "cpu").draw("test", number, BATCH, bench.seed)
        spectra.append(observe(objects, "desi", bench.seed, limits=FAINT))
    started = time.perf_counter()
    free, known, classes = (np.concatenate(each) for each in zip(*(fit(seen, bench.templates) for seen in spectra)))
    seconds = (time.perf_counter() - started) / len(free)
    kind = np.concatenate([seen.objects.kind.numpy() for seen in spectra])
    truth = np.concatenate([seen.objects.redshift.numpy() for seen in spectra])
    rows = []
    for name in KINDS:
        members = kind == KINDS.index(name)
        for what, found in (("class known", known), ("class free", free)):
            scores = redshift_scores(found[members], truth[members])
            scores["accuracy"] = float(np.mean(classes[members] == kind[members]))
            about = {"kind": name, "objects": str(len(free)), "seconds_per_spectrum": seconds}
            rows.append(row("redrock", what, summary([scores]), **about))
    return rows


def load_templates(folder: Path) -> list:
    """redrock's templates of the folder, in redrock's own objects."""
    from redrock.templates import Template

    names = [f"QSO-{part}-v1.1" for part in ("LOZ", "HIZ")] + [f"STAR-{kind}-v0.1" for kind in STAR_TYPES]
    templates = [Template(str(folder / f"redrock/rrtemplate-{name}.fits")) for name in names]
    with fits.open(folder / "redrock/rrtemplate-galaxy-oldhistory.fits") as hdus:
        header, flux = hdus[0].header, np.asarray(hdus[0].data, dtype=np.float64)
    wavelength = header["CRVAL1"] + header["CDELT1"] * np.arange(flux.shape[1])
    # This file is older than the keywords that redrock asks for.
    galaxy = Template(
        spectype="GALAXY", subtype="", redshifts=GALAXY_REDSHIFTS, wave=wavelength, flux=flux, igm_model="None"
    )
    return [*templates, galaxy]


def resolution(sigma: np.ndarray) -> sparse.dia_matrix:
    """A resolution matrix with rows that add up to 1; redrock itself averages over the pixel, which is taken off."""
    count, width = len(sigma), np.sqrt(sigma**2 - 1.0 / 12.0)
    offsets = np.arange(-REACH, REACH + 1)
    place = np.arange(count)[:, None] + offsets
    weights = np.where((place >= 0) & (place < count), np.exp(-0.5 * (offsets / width[:, None]) ** 2), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(count)[:, None], place.shape)
    is_inside = (place >= 0) & (place < count)
    matrix = sparse.csr_matrix((weights[is_inside], (rows[is_inside], place[is_inside])), shape=(count, count))
    return matrix.todia()


def make_targets(seen: Observation) -> list:
    from redrock.targets import Spectrum, Target

    matrices = {arm: resolution(desi.dispersion(arm) / 0.8) for arm in desi.ARMS}
    targets = []
    for number in range(len(seen.flux)):
        start, spectra = 0, []
        for arm, (_, count) in desi.ARMS.items():
            part = slice(start, start := start + count)
            flux, ivar, wavelength = (
                np.array(each, dtype=np.float64)
                for each in (seen.flux[number, part], seen.ivar[number, part], seen.wavelength[part])
            )
            spectra.append(Spectrum(wavelength, np.where(ivar > 0, flux, 0.0), ivar, matrices[arm], band=arm.lower()))
        targets.append(Target(number, spectra))
    return targets


def fit(seen: Observation, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best redshift of any class, best redshift of the true class, best class (into `KINDS`), (spectra,) each."""
    from redrock.targets import DistTargetsCopy
    from redrock.templates import DistTemplate
    from redrock.zfind import zfind

    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every template
        targets = DistTargetsCopy(make_targets(seen))
        templates = [DistTemplate(each, targets.wavegrids()) for each in load_templates(folder)]
        _, answers = zfind(targets, templates)
    free, known, classes = [], [], []
    for number in range(len(seen.flux)):
        mine = answers[answers["targetid"] == number]  # the best first
        kinds = [str(each).strip() for each in mine["spectype"]]
        free.append(mine["z"][0])
        classes.append(KINDS.index(kinds[0]))
        known.append(mine["z"][kinds.index(KINDS[seen.objects.kind[number]])])
    return np.array(free), np.array(known), np.array(classes)
