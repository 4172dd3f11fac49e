"""A small seeded run of the fuzzer on every push; `--mutations 100000` or `tests/data/fuzz.py` for a long one."""

import fuzz
import numpy as np
import pytest
from native_files import write_apstar, write_apvisit, write_aspcapstar, write_desi, write_galah_ccd, write_sdss

from spectral_tokenizer.data import SpectrumFileError


STAR = "131123003001096"


@pytest.fixture
def subjects(tmp_path):
    """A tiny file of every product, with values that differ from pixel to pixel."""
    generator, files = np.random.default_rng(0), []

    def folder(index):
        path = tmp_path / str(index)
        path.mkdir()
        return path

    flux = 50 + generator.normal(size=400)
    files.append(("sdss", write_sdss(folder(0) / "spec-0001-55555-0007.fits", flux=flux)))
    names = [f"{arm}1-00012345-00000001-00000002" for arm in "BR"]
    files.append(("sdss", write_sdss(folder(1) / "spec-0001-55555-0007.fits", flux=flux, upper=True, exposures=names)))
    files.append(
        ("desi", write_desi(folder(2) / "coadd-1.fits", [1 << 60, 2 << 60], objtype=["TGT", "TGT"], num_pixels=200))
    )
    files.append(("galah", write_galah_ccd(folder(3), STAR, 1, flux=flux)))
    files.append(("galah", write_galah_ccd(folder(4), STAR, 2, flux=flux, layout="6.0")))
    files.append(("apogee", write_apstar(folder(5) / "apStar-1.fits", num_visits=1)))
    files.append(("apogee", write_aspcapstar(folder(6) / "aspcapStar-1.fits")))
    files.append(("apogee", write_apvisit(folder(7) / "apVisit-1.fits", num_pixels=200)))
    work = tmp_path / "work"
    result = []
    for index, (survey, path) in enumerate(files):
        place = work / str(index)
        place.mkdir(parents=True)
        result.append(fuzz.Subject(survey, path, place))
    return result


def test_no_mutation_crashes_hangs_or_lies(subjects, pytestconfig):
    counts, failures = fuzz.run(subjects, pytestconfig.getoption("--mutations"), seed=1)
    assert not failures, "\n".join(failures)
    outcomes = {outcome for _, _, outcome in counts}
    assert {"the same", "explained", "refused"} <= outcomes  # it did do damage, and some of it without effect
    assert {survey for survey, _, _ in counts} == {"sdss", "desi", "galah", "apogee"}


def test_the_judge_can_tell(subjects):
    """What a reader that does wrong would be told."""
    subject = subjects[0]
    before = next(iter(subject.rows.values()))
    after = {**before, "flux": before["flux"] * 1.5}
    assert subject.compare(before, before, 0, True) == "the same"
    assert subject.compare(before, after, 0, True) == subject.compare(before, after, 4, False) == "WRONG"
    assert subject.compare(before, {**before, "wavelength": before["wavelength"] + 1}, 0, True) == "WAVELENGTHS MOVED"
    one = before["flux"].copy()
    one[7] = 0
    assert subject.compare(before, {**before, "flux": one}, 4, False) == "explained"
    assert subject.compare(before, {**before, "redshift": 9.0}, 4, False) == "other labels"
    assert subject.compare(None, before, 4, False) == "WRONG"


@pytest.mark.parametrize(
    ("error", "outcome"), [(RuntimeError, "CRASH"), (SpectrumFileError, "refused"), (None, "HANG")]
)
def test_crashes_and_hangs_are_seen(subjects, monkeypatch, error, outcome):
    def read(content):
        if error is None:
            try:
                while True:
                    pass
            except Exception as damage:  # as readers do
                raise SpectrumFileError("a", "b", "c", "d") from damage
        raise error("a", "b", "c", "d")

    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(subjects[0], "read", read)
    previous = fuzz.signal.signal(fuzz.signal.SIGPROF, fuzz.raise_hang)
    try:
        assert subjects[0].outcome(fuzz.Mutation(b"", "none")) == outcome
    finally:
        fuzz.signal.signal(fuzz.signal.SIGPROF, previous)
