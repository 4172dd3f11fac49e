import numpy as np
import pytest
from datasets import Dataset

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.splits import split


def dataset(survey, object_id, ra, dec):
    object_id = list(object_id)
    columns = {"survey": [survey] * len(object_id), "object_id": object_id, "ra": list(ra), "dec": list(dec)}
    return Dataset.from_dict({**columns, "row": list(range(len(object_id)))})


def sky(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(0, 360, count), np.degrees(np.arcsin(generator.uniform(-1, 1, count)))


def sides(parts):
    """(name, row) -> whether it is held."""
    return {
        (name, row): held
        for name, pair in parts.items()
        for held, part in zip((False, True), pair)
        for row in part["row"]
    }


@pytest.mark.parametrize("by", ["object", "sky"])
def test_nothing_is_lost_or_doubled(by):
    ra, dec = sky(3000)
    parts = split({"a": dataset("sdss", map(str, range(3000)), ra, dec)}, 0.2, by=by, nside=16)
    train, held = (part["row"][:] for part in parts["a"])
    assert sorted([*train, *held]) == list(range(3000))
    assert train == sorted(train) and held == sorted(held)
    assert len(held) == pytest.approx(600, abs=75)


@pytest.mark.parametrize("by", ["object", "sky"])
def test_visits_stay_together(by):
    """Of one survey by name, also without positions; of several surveys by place, across pixels and at 0 h."""
    ra, dec = sky(1000)
    ra[:50] = np.where(np.arange(50) % 2, 1e-4, 360 - 1e-4)  # on both sides of 0 h
    shift = np.random.default_rng(1).normal(0, 0.3 / 3600, (2, 1000))  # 0.3 arcseconds
    second = dataset(
        "galah", [f"g{k}" for k in range(1000)], (ra + shift[0] / np.cos(np.radians(dec))) % 360, dec + shift[1]
    )
    first = dataset("sdss", map(str, range(1000)), ra, dec)
    visits = dataset("apogee", [f"star{k % 100}" for k in range(500)], [np.nan] * 500, [np.nan] * 500)
    held = sides(split({"one": first, "two": second, "three": visits}, 0.3, by=by, nside=2**13))
    assert 200 < sum(held["one", row] for row in range(1000)) < 400
    assert all(held["one", row] == held["two", row] for row in range(1000))
    assert all(held["three", row] == held["three", row % 100] for row in range(500))


def test_pixel_boundaries_are_crossed():
    """Pixels of 3 arcseconds: the two positions of most objects lie in different ones."""
    ra, dec = sky(500)
    first = dataset("sdss", map(str, range(500)), ra, dec)
    second = dataset("desi", map(str, range(500)), ra, np.clip(dec + 2.5 / 3600, -90, 90))
    held = sides(split({"one": first, "two": second}, 0.5, by="sky", nside=2**16))
    assert all(held["one", row] == held["two", row] for row in range(500))
    apart = sides(split({"one": first, "two": second}, 0.5, by="sky", nside=2**16, radius=1.0))
    assert sum(apart["one", row] != apart["two", row] for row in range(500)) > 100  # so the radius did it


def test_neighbours_are_held_together_by_sky():
    ra, dec = np.repeat(np.arange(20) * 15.0 + 2.0, 50), np.full(1000, 10.0)
    ra = ra + np.tile(np.linspace(0, 0.1, 50), 20)
    held = sides(split({"a": dataset("sdss", map(str, range(1000)), ra, dec)}, 0.5, by="sky", nside=4))
    assert all(len({held["a", 50 * field + k] for k in range(50)}) == 1 for field in range(20))
    held = sides(split({"a": dataset("sdss", map(str, range(1000)), ra, dec)}, 0.5, by="object"))
    assert len({held["a", k] for k in range(50)}) == 2


@pytest.mark.parametrize("by", ["object", "sky"])
def test_the_draw_depends_on_the_seed_and_on_names_alone(by):
    ra, dec = sky(400)
    names = [f"n{k}" for k in range(400)]
    whole = sides(split({"a": dataset("sdss", names, ra, dec)}, 0.3, by=by, seed=1))
    again = sides(split({"a": dataset("sdss", names, ra, dec)}, 0.3, by=by, seed=1))
    part = sides(split({"a": dataset("sdss", names[:200][::-1], ra[:200][::-1], dec[:200][::-1])}, 0.3, by=by, seed=1))
    other = sides(split({"a": dataset("sdss", names, ra, dec)}, 0.3, by=by, seed=2))
    assert whole == again != other
    assert all(part["a", row] == whole["a", 199 - row] for row in range(200))


def test_both_sides_have_something():
    ra, dec = sky(12)
    for seed in range(5):
        parts = split({name: dataset(name, map(str, range(12)), ra, dec) for name in "ab"}, 1e-6, seed=seed)
        assert all(len(train) == 11 and len(held) == 1 for train, held in parts.values())
        assert parts["a"][1]["row"][:] == parts["b"][1]["row"][:]
        parts = split({"a": dataset("a", map(str, range(12)), ra, dec)}, 1 - 1e-9, seed=seed)
        assert (len(parts["a"][0]), len(parts["a"][1])) == (1, 11)


def test_one_object_is_both(caplog):
    parts = split({"a": dataset("a", ["x", "x"], [1.0, 1.0], [2.0, 2.0])}, 0.1)
    assert len(parts["a"][0]) == len(parts["a"][1]) == 2
    assert "one object alone" in caplog.text


def test_what_it_cannot_do():
    rows = dataset("a", ["x", "y"], [1.0, 3.0], [2.0, 2.0])
    with pytest.raises(ValueError, match="plate"):
        split({"a": rows}, 0.1, by="plate")
    with pytest.raises(ValueError, match="fraction 1"):
        split({"a": rows}, 1)


def test_simulated_stars_of_several_surveys(simulated_surveys, tmp_path):
    """The simulator's shared stars have one position in all surveys."""
    rows = {name: load_survey(name, simulated_surveys[name], cache_dir=tmp_path) for name in ("sdss", "desi")}
    parts = split(rows, 0.3)
    on_side = [
        {
            (round(ra, 4), round(dec, 4))
            for pair in parts.values()
            for ra, dec in zip(pair[side]["ra"], pair[side]["dec"])
        }
        for side in (0, 1)
    ]
    shared = {(round(ra, 4), round(dec, 4)) for ra, dec in zip(rows["sdss"]["ra"], rows["sdss"]["dec"])}
    shared &= {(round(ra, 4), round(dec, 4)) for ra, dec in zip(rows["desi"]["ra"], rows["desi"]["dec"])}
    assert shared and not on_side[0] & on_side[1]


def test_few_shared_objects_leave_no_side_empty():
    """What is done for one dataset must not undo what was done for another."""
    for seed in range(100):
        names = {"b": ("1", "2"), "a": ("2", "3"), "c": ("3", "1", "4")}
        tables = {
            name: dataset("sdss", each, [10.0 * int(one) for one in each], [0.0] * len(each))
            for name, each in names.items()
        }
        parts = split(tables, 0.3, seed=seed)
        assert all(len(side) for pair in parts.values() for side in pair)
        held = {one for _, side in parts.values() for one in side["object_id"]}
        assert not held & {one for side, _ in parts.values() for one in side["object_id"]}
    del tables["c"]
    tables["d"] = dataset("sdss", ("1", "3"), [10.0, 30.0], [0.0, 0.0])  # three pairs of three objects
    with pytest.raises(ValueError, match="d: found 2 objects, shared with other datasets; expected more"):
        split(tables, 0.3)


def test_places_that_are_none_join_nothing():
    rows = dataset("a", map(str, range(40)), [-9999.0] * 40, [-9999.0] * 40)
    train, held = split({"a": rows}, 0.3)["a"]
    assert 0 < len(held) < 40 and not set(train["row"]) & set(held["row"])
