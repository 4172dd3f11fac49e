"""Rows to learn from and rows held back, such that nothing of an object stands on both sides.

An object is one star, galaxy or quasar, whichever surveys observed it and however often: rows of one survey with one
`object_id` belong together, and so do rows within a few arcseconds on the sky. Whole pixels of the sky may be held
back instead, which also keeps neighbours apart that share a plate, a field or foreground dust.

What is drawn follows from the seed and from names or places alone, not from the order or number of rows: a dataset
that grows keeps its held rows.
"""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
from astropy import units
from astropy_healpix import HEALPix
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


logger = logging.getLogger(__name__)

ARCSECOND = np.pi / 180 / 3600


def split(
    datasets: Mapping[str, Dataset],
    fraction: float,
    *,
    by: str = "object",
    seed: int = 0,
    radius: float = 3.0,
    nside: int = 64,
) -> dict[str, tuple[Dataset, Dataset]]:
    """Split datasets of several surveys together, so that one object's rows are on one side in all of them.

    Each dataset has at least one held object and one to learn from; a dataset of one object alone is both.

    Args:
        datasets: rows of `load_survey`, by any names.
        fraction: to hold back, of the objects or of the sky, about.
        by: ``"object"``, or ``"sky"``: pixels of the sky, HEALPix in equatorial coordinates. An object whose rows lie
            in two pixels counts to one of them; rows without a position are drawn by object.
        seed: of the draw.
        radius: rows that are closer than this many arcseconds are one object's. Stars with a large proper motion move
            further between surveys of different epochs.
        nside: HEALPix resolution: 64, as DESI's files have it, is pixels of 0.9 degrees.

    Returns:
        name -> (rows to learn from, rows held back), in their old order.

    Raises:
        ValueError: another `by`, a fraction that is not between 0 and 1, or datasets of so few objects, all of them
            shared, that one of them would have nothing on one side.
    """
    if by not in ("object", "sky") or not 0 < fraction < 1:
        raise ValueError(f'by {by!r}, fraction {fraction}; expected "object" or "sky", and a fraction between 0 and 1')
    rows = pd.concat([positions(name, dataset) for name, dataset in datasets.items()], ignore_index=True)
    rows["group"] = object_groups(rows, radius)
    rows["draw"] = draw_groups(rows, by, seed, nside)
    is_held = rows["draw"] < fraction
    if num_missing := int(rows["ra"].isna().sum()):
        logger.warning(
            "split: %d of %d rows have no position; they are known by their object_id", num_missing, len(rows)
        )
    parts, whole = {}, []
    for name, dataset in datasets.items():
        own = rows[rows["dataset"] == name]
        if own["group"].nunique() < 2:
            logger.warning("split: %s has one object alone, which is both learned from and held back", name)
            parts[name] = (dataset, dataset)
            continue
        if is_held[own.index].nunique() < 2:
            is_held = move_one(name, rows, is_held, whole)
        whole.append(own.index)
    for name, dataset in datasets.items():
        held = is_held[rows["dataset"] == name].to_numpy()
        parts.setdefault(name, (dataset.select(np.flatnonzero(~held)), dataset.select(np.flatnonzero(held))))
    return parts


def move_one(name: str, rows: pd.DataFrame, is_held: pd.Series, whole: list[pd.Index]) -> pd.Series:
    """Hold back one object of a dataset of which none is, or let one go where all are: in all datasets, as it is one
    object.

    Args:
        name: the dataset's.
        rows: with the columns of `positions`, ``group`` and ``draw``.
        is_held: (rows,) booleans.
        whole: rows of each dataset that has both sides, and keeps them.

    Returns:
        `is_held` after that.
    """
    own = rows["dataset"] == name
    hold = not is_held[own].any()
    for group in rows[own].sort_values("draw", ascending=hold)["group"].unique():
        moved = is_held.mask(rows["group"] == group, hold)
        if all(moved[each].nunique() == 2 for each in whole):
            return moved
    raise ValueError(
        f"{name}: found {rows['group'][own].nunique()} objects, shared with other datasets; expected more, as one would "
        "have nothing to learn from or nothing held back"
    )


def positions(name: str, dataset: Dataset) -> pd.DataFrame:
    """What is needed of the rows of a dataset: dataset, object (survey and identifier), ra and dec in degrees."""
    table = dataset.select_columns(["survey", "object_id", "ra", "dec"]).with_format("arrow")[:].to_pandas()
    # A place that is none, as -9999, would make one object of all rows that have it.
    is_place = table["ra"].between(0, 360) & table["dec"].between(-90, 90)
    return pd.DataFrame(
        {
            "dataset": name,
            "object": table["survey"] + " " + table["object_id"],
            "ra": table["ra"].where(is_place),
            "dec": table["dec"].where(is_place),
        }
    )


def object_groups(rows: pd.DataFrame, radius: float) -> np.ndarray:
    """A number per row, the same for rows of one object.

    Args:
        rows: with the columns of `positions`.
        radius: arcseconds.
    """
    node, _ = pd.factorize(rows["object"])
    known = rows.assign(node=node).dropna(subset=["ra"]).drop_duplicates(["node", "ra", "dec"])
    ra, dec = np.radians(known["ra"].to_numpy()), np.radians(known["dec"].to_numpy())
    places = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    chord = 2 * np.sin(radius * ARCSECOND / 2)
    pairs = cKDTree(places).query_pairs(chord, output_type="ndarray") if len(places) else np.zeros((0, 2), dtype=int)
    first, second = known["node"].to_numpy()[pairs].reshape(-1, 2).T
    size = node.max(initial=-1) + 1
    graph = coo_array((np.ones(len(pairs), dtype=bool), (first, second)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return component[node]


def draw_groups(rows: pd.DataFrame, by: str, seed: int, nside: int) -> np.ndarray:
    """A number from 0 to 1 per row, the same for all rows of a group, from the name that is first in the alphabet.

    Args:
        rows: with the columns of `positions` and ``group``.
        by, seed, nside: as in `split`.
    """
    names = rows["object"]
    if by == "sky":
        is_known = rows["ra"].notna().to_numpy()
        healpix = HEALPix(nside, order="nested")
        ra, dec = (rows.loc[is_known, name].to_numpy() * units.deg for name in ("ra", "dec"))
        names = names.where(~is_known, "")
        # Padded, so that the alphabet's order is the numbers'.
        names[is_known] = [f"pixel {pixel:012d}" for pixel in healpix.lonlat_to_healpix(ra, dec)]
    first = names.groupby(rows["group"]).transform("min")
    return pd.util.hash_array(first.to_numpy(dtype=object), hash_key=f"{seed:016d}"[-16:]) / 2.0**64
