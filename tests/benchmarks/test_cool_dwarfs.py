"""M dwarfs among a stream's APOGEE spectra: from published templates alone, and beside real ones."""

import numpy as np
import pytest
import torch

from spectral_tokenizer import SpectralConfig
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.objectives_spectral_tokenizer import MaskedModelling
from training.recipe import Recipe
from training.simulated.cool_dwarfs import GRID
from training.simulated.observing import observe
from training.simulated.patches import to_spectra
from training.simulated.populations import COOL_DWARFS, KINDS, SURVEYS, population
from training.simulated.spectrographs import spectrograph
from training.simulated.stream import SimulatedStream
from training.simulated.template_files import SPLITS


OBJECTIVE = MaskedModelling(SpectralConfig())


def test_they_are_sound_spectra_of_stars_without_labels(templates_dir):
    drawn = [population(COOL_DWARFS, templates_dir).draw(split, 0, 32) for split in SPLITS]
    others = [population(domain, templates_dir).draw(split, 0, 32) for domain in SURVEYS for split in SPLITS]
    names = torch.cat([each.index for each in drawn + others])
    assert len(names.unique()) == len(names)
    for objects in drawn:
        assert (objects.kind == KINDS.index("STAR")).all()
        assert all(each.isnan().all() for each in objects.labels.values())
        spectra = to_spectra(observe(objects, "apogee"))
        assert spectra.flux.isfinite().all() and spectra.truth.isfinite().all() and min(spectra.lengths) > 80
        assert (spectra.truth[spectra.ivar > 0] > 0).all()
    assert len({teff for each in drawn for teff in each.members[0][3]["cool_teff"].tolist()}) == 96
    with pytest.raises(ValueError, match="observes stars with labels"):
        observe(drawn[0], "galah")


def test_a_stream_with_them_differs_in_apogee_alone(templates_dir):
    def spectra(**settings):
        return SimulatedStream(OBJECTIVE, spectra_per_step=32, templates=templates_dir, **settings).spectra(0)

    without, some, all_cool = spectra(), spectra(cool_dwarfs=0.5), spectra(cool_dwarfs=1.0)
    assert without.survey == some.survey == all_cool.survey
    is_apogee = torch.tensor([survey == "apogee" for survey in without.survey])
    for other in (some, all_cool):
        assert torch.equal(without.choose(~is_apogee).flux, other.choose(~is_apogee).flux)
    is_cool = [each.choose(is_apogee).teff.isnan() for each in (without, some, all_cool)]
    assert not is_cool[0].any() and is_cool[1].any() and not is_cool[1].all() and is_cool[2].all()


def test_who_has_no_templates_is_told(tmp_path):
    with pytest.raises(ValueError, match="cool dwarfs: expected published templates"):
        SimulatedStream(OBJECTIVE, templates="none", cool_dwarfs=0.1)
    with pytest.raises(ValueError, match="cool_dwarfs: expected apogee among the weights"):
        SimulatedStream(OBJECTIVE, {"sdss": 1.0}, templates="none", cool_dwarfs=0.1)
    with pytest.raises(ValueError, match="cool_dwarfs: expected 0, or a part"):
        Recipe(cool_dwarfs=0.1)


@pytest.mark.parametrize("name", ["2M03441583+3159367", "2M08501918+1056436", "2M11194647+0820356"])
def test_real_ones_look_like_them(spectra_dir, templates_dir, name):
    """Their lines stand where those of real spectra at rest do."""
    rows = load_survey("apogee", spectra_dir / "apogee").to_list()
    row = next(each for each in rows if each["object_id"] == name and "aspcapStar" in each["source"])
    wavelength, flux, ivar = (np.array(row[each]) for each in ("wavelength", "flux", "ivar"))
    objects = population(COOL_DWARFS, templates_dir).draw("validation", 0, 64)
    source, _, _, parameters = objects.members[0]
    templates = source.apogee_flux(spectrograph("apogee"), parameters)[0].numpy()
    is_used = (ivar > 0.3 * np.median(ivar)) & (wavelength > 15900) & (wavelength < 16400)  # not lines of the sky

    def likeness(shift: float) -> float:
        found = []
        for template in templates:
            moved = np.interp(wavelength[is_used] * (1 + shift / 2.998e5), GRID.wavelength, template)
            found.append(np.corrcoef(*(without_slope(each) for each in (moved, flux[is_used])))[0, 1])
        return max(found)

    assert likeness(0.0) > 0.5
    assert likeness(0.0) > max(likeness(-12.0), likeness(12.0))


def without_slope(values: np.ndarray) -> np.ndarray:
    place = np.linspace(-1.0, 1.0, len(values))
    return values / np.polyval(np.polyfit(place, values, 3), place)
