"""The published templates: where they are, and how they get onto the grids that are used here.

None of the files is part of the project; `templates_folder` finds them or says where they were looked for, and
README.md beside this file says where they were published.
"""

import csv
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .spectrographs import TEMPLATE_SMOOTHING, LogGrid


ROOT = Path(__file__).parent.parent.parent
DEFAULT_FOLDER = "../shared/templates"
FOLDER_VARIABLE = "TEMPLATES_DIR"
SPLITS = ("train", "validation", "test")
SHARES = (0.80, 0.05, 0.15)
STAR_TYPES = ("A", "B", "F", "G", "K", "M", "WD")
REQUIRED = ("redrock/rrtemplate-galaxy-oldhistory.fits", "apogee_cannon_apokasc", "binspec_apogee_nn", "emiles_ssp")


def templates_folder(given: str | Path | None = None) -> Path | None:
    """The folder of published templates, or None for the package's own physical simulator.

    Args:
        given: A folder (it must exist), "none", or None for the environment variable TEMPLATES_DIR and then
            `../shared/templates` beside the repository.

    Raises:
        FileNotFoundError: a folder was named and does not hold the templates.
    """
    given = given if given is not None else os.environ.get(FOLDER_VARIABLE) or None  # set to nothing: not set
    if given is not None and str(given).lower() == "none":
        return None
    folder = Path(given) if given is not None else (ROOT / DEFAULT_FOLDER).resolve()
    missing = [name for name in REQUIRED if not (folder / name).exists()]
    if not missing:
        return folder
    if given is None:
        return None
    raise FileNotFoundError(f"{folder}: expected published templates, missing: {', '.join(missing)}")


def split_rows(name: str, count: int) -> dict[str, np.ndarray]:
    """Which rows of a table of templates each split may use: disjoint, fixed by the table's name."""
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(count)
    ends = np.cumsum(np.round(np.array(SHARES) * count).astype(int))[:-1]
    return dict(zip(SPLITS, (np.sort(part) for part in np.split(order, ends))))


def split_shapes(name: str, coefficients: np.ndarray, nearest: float = 1e-3) -> dict[str, np.ndarray]:
    """As `split_rows`, but rows of `coefficients` (rows, components) that are alike but for their level stay together.

    redrock's files have most archetypes several times, at other levels: split by rows, those of the test would be
    trained on.
    """
    shape = coefficients / np.linalg.norm(coefficients, axis=1, keepdims=True)
    alike = cKDTree(shape).query_pairs(nearest, output_type="ndarray")
    links = coo_matrix((np.ones(len(alike)), tuple(alike.T)), shape=(len(shape), len(shape)))
    count, group = connected_components(links, directed=False)
    return {split: np.flatnonzero(np.isin(group, part)) for split, part in split_rows(name, count).items()}


def regrid(wavelength: np.ndarray, flux: np.ndarray, grid: LogGrid, smoothing: float = TEMPLATE_SMOOTHING):
    """Templates (rows, pixels) -> (rows, grid.size) float64, smoothed by `smoothing` km/s; level beyond their ends."""
    parts = 4
    fine = np.exp(grid.start + grid.step / parts * np.arange(grid.size * parts))
    rows = []
    for row in np.atleast_2d(flux):
        values = np.interp(fine, wavelength, row)
        rows.append(gaussian_filter1d(values, smoothing / grid.velocity * parts)[::parts])
    return np.stack(rows)


@cache
def redrock_basis(path: Path, grid_key: tuple) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float]]:
    """Basis vectors on a grid, archetypes' coefficients, and the range in vacuum Angstrom."""
    with fits.open(path) as hdus:
        header = hdus[0].header
        vectors = np.asarray(hdus[0].data, dtype=np.float64)
        axis = header["CRVAL1"] + header["CDELT1"] * np.arange(vectors.shape[1])
        coefficients = np.asarray(hdus["ARCHETYPE_COEFF"].data, float) if "ARCHETYPE_COEFF" in hdus else None
    wavelength = 10.0**axis if header.get("LOGLAM") else axis
    return regrid(wavelength, vectors, LogGrid(*grid_key)), coefficients, (wavelength[0], wavelength[-1])


def read_redrock(path: Path, grid: LogGrid) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float]]:
    """A redrock template file: see `redrock_basis`."""
    return redrock_basis(path, (grid.start, grid.step, grid.size))


def read_csv_columns(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Columns of a table as floats, (rows, columns); rows without a number are left out."""
    with open(path, newline="") as file:
        rows = [[row[name] for name in names] for row in csv.DictReader(file)]
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return values[np.isfinite(values).all(axis=1)]
