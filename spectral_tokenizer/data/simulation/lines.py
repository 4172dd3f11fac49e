"""Where spectral lines are: atoms, hydrogen, molecules, nebulae, quasars, the night sky and the Earth's atmosphere.

All wavelengths are vacuum Angstrom. Facts come from the literature.

Atoms (`atomic_lines.csv`): wavelengths, excitation energies and oscillator strengths of the Gaia-ESO line list from
4751 to 6849 and 8490 to 8949 (air; Heiter et al. 2021), of APOGEE's beyond 15000 (Shetrone et al. 2015), of Kurucz's
elsewhere. Kept is what takes 3 % of the continuum at high resolution (`HIGH_RESOLUTION`) and 23 % elsewhere in one of
seven stars from 3900 to 15000 K; transitions of one species and level that lie within 2.5 and 45 km/s are summed.

Molecules (`molecular_lines.csv`): the strongest lines of C2 (Brooke et al. 2013), CN (Brooke et al. 2014), MgH (Hinkle
et al. 2013), and CN, CO and OH beyond 15000 as in APOGEE's list; strengths are relative, a scale per molecule and
window.

Nebular lines are as in the NIST Atomic Spectra Database, airglow as in the OH list of Rousselot et al. (2000). All
good enough for a simulation, not for an abundance analysis.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np


RYDBERG_HYDROGEN = 109677.58  # 1/cm


class LineTable(NamedTuple):
    """Transitions of one kind: `species` as (element or molecule, ion stage), the rest arrays of equal length."""

    species: list[tuple[str, int]]
    wavelength: np.ndarray  # vacuum Angstrom
    log_gf: np.ndarray
    excitation: np.ndarray  # eV, of the lower level


#: Narrow emission lines of ionised gas: name -> vacuum Angstrom.
NEBULAR_LINES = {
    "[NeV]3427": 3426.85,
    "[OII]3727": 3727.10,
    "[OII]3730": 3729.86,
    "[NeIII]3870": 3869.86,
    "Hdelta": 4102.892,
    "Hgamma": 4341.684,
    "[OIII]4364": 4364.436,
    "HeII4687": 4687.02,
    "Hbeta": 4862.683,
    "[OIII]4960": 4960.295,
    "[OIII]5008": 5008.240,
    "HeI5877": 5877.249,
    "[OI]6302": 6302.046,
    "[NII]6550": 6549.861,
    "Halpha": 6564.610,
    "[NII]6585": 6585.273,
    "[SII]6718": 6718.294,
    "[SII]6733": 6732.674,
    "[ArIII]7138": 7137.77,
    "[SIII]9071": 9071.10,
    "[SIII]9533": 9533.20,
}

#: Broad lines of quasars: name -> (vacuum Angstrom, mean rest equivalent width in Angstrom, mean sigma in km/s,
#: mean blueshift in km/s); after the composite of Vanden Berk et al. (2001), rounded.
BROAD_LINES = {
    "Lybeta+OVI": (1033.0, 10.0, 3400.0, 200.0),
    "Lyalpha": (1215.67, 48.0, 2600.0, 0.0),
    "Lyalpha wing": (1218.0, 22.0, 6500.0, 0.0),
    "NV": (1240.14, 14.0, 2700.0, 100.0),
    "OI": (1304.35, 2.5, 1700.0, 0.0),
    "CII": (1335.3, 1.0, 1600.0, 0.0),
    "SiIV+OIV]": (1397.8, 9.0, 2700.0, 200.0),
    "CIV": (1549.06, 22.0, 2300.0, 600.0),
    "CIV wing": (1549.06, 12.0, 5500.0, 600.0),
    "HeII+OIII]": (1645.0, 8.0, 4500.0, 300.0),
    "AlIII": (1857.4, 1.0, 1800.0, 100.0),
    "CIII]": (1906.0, 21.0, 3300.0, 500.0),
    "MgII": (2799.1, 30.0, 2100.0, 0.0),
    "Hgamma": (4341.684, 12.0, 2300.0, 0.0),
    "Hbeta": (4862.683, 45.0, 2300.0, 0.0),
    "Halpha": (6564.61, 180.0, 2000.0, 0.0),
}

#: Band heads of molecules: name -> [(vacuum Angstrom of the head, extent in Angstrom away from the head with the sign
#: of the degradation, relative strength)].
MOLECULAR_BANDS = {
    "CH": [(4315.5, -45.0, 1.0), (3900.0, -40.0, 0.5)],
    "CN": [(3884.5, -60.0, 1.0), (4217.2, -60.0, 0.35), (7890.0, 700.0, 0.04), (9190.0, 500.0, 0.06)],
    "C2": [(5166.6, -90.0, 0.6), (4738.5, -70.0, 0.5), (5637.0, -80.0, 0.4)],
    "MgH": [(5212.5, -110.0, 1.0), (4846.0, -60.0, 0.2)],
    "CaH": [(6386.0, 60.0, 0.4), (6815.0, 130.0, 0.8), (7050.0, -100.0, 0.5)],
    "TiO": [
        *[(4585.0, 130.0, 0.25), (4762.3, 150.0, 0.5), (4956.0, 170.0, 0.8), (5168.6, 200.0, 1.0)],
        *[(5449.7, 130.0, 0.9), (5598.9, 110.0, 0.5), (5760.6, 90.0, 0.35), (5848.6, 180.0, 0.8)],
        *[(6160.2, 230.0, 0.9), (6653.0, 180.0, 0.8), (7055.7, 240.0, 1.2), (7127.5, 130.0, 0.8)],
        *[(7591.0, 200.0, 0.8), (7668.0, 160.0, 0.5), (8208.0, 200.0, 0.35), (8435.0, 300.0, 0.6)],
        *[(8862.0, 250.0, 0.5), (9211.0, 250.0, 0.35)],
    ],
}

#: Bands of the Earth's atmosphere: (vacuum Angstrom from, to, depth of the strongest lines, molecule).
TELLURIC_BANDS = [
    (6278.0, 6330.0, 0.10, "O2"),
    (6475.0, 6580.0, 0.06, "H2O"),
    (6868.5, 6950.0, 0.20, "O2"),
    (7166.0, 7340.0, 0.25, "H2O"),
    (7595.0, 7700.0, 0.90, "O2"),
    (8130.0, 8350.0, 0.25, "H2O"),
    (8940.0, 9250.0, 0.40, "H2O"),
    (9280.0, 9800.0, 0.65, "H2O"),
    (15100.0, 15250.0, 0.10, "H2O"),
    (15690.0, 15800.0, 0.30, "CO2"),
    (15990.0, 16150.0, 0.30, "CO2"),
    (16430.0, 16600.0, 0.12, "CH4"),
    (16600.0, 17000.0, 0.25, "CH4"),
]


def read_csv(name: str) -> list[dict[str, str]]:
    """Rows of a table that stands beside this file."""
    with open(Path(__file__).parent / name, newline="") as table:
        return list(csv.DictReader(table))


@cache
def atomic_lines() -> LineTable:
    """Atomic lines, 3450 to 10560 and 15000 to 17100 Angstrom, some of them sums of close ones."""
    rows = read_csv("atomic_lines.csv")
    return LineTable(
        [(row["element"], int(row["ion"])) for row in rows],
        *(np.array([float(row[name]) for row in rows]) for name in ("wavelength", "log_gf", "excitation")),
    )


@cache
def sky_lines() -> tuple[np.ndarray, np.ndarray]:
    """Night-sky emission: vacuum Angstrom and intensity relative to the strongest OH line of the same region."""
    rows = read_csv("sky_lines.csv")
    return np.array([float(row["wavelength"]) for row in rows]), np.array([float(row["intensity"]) for row in rows])


def hydrogen_series(lower: int, highest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavelengths (vacuum Angstrom), oscillator strengths (Kramers) and Stark constants of a hydrogen series.

    The Stark constant is K = 5.5e-5 (n m)^4 / (m^2 - n^2) Angstrom per unit of normal field strength
    (Underhill & Waddell 1959).
    """
    upper = np.arange(lower + 1, highest + 1, dtype=np.float64)
    difference = 1.0 / lower**2 - 1.0 / upper**2
    # The second factor is the mean fine-structure shift of the lower level: 0.09 Angstrom at H alpha.
    wavelength = 1e8 / (RYDBERG_HYDROGEN * difference) * (1.0 - 5.2e-5 / lower**2)
    # 32 / (3 pi sqrt 3), times a Gaunt factor near 0.9 for all lines: good to 20 per cent.
    strength = 1.96 * 0.87 / (lower**5 * upper**3 * difference**3)
    return wavelength, strength, 5.5e-5 * (lower * upper) ** 4 / (upper**2 - lower**2)


#: Density of the synthetic forest of the ultraviolet: element, ion stage, (excitation range in eV), lines per 500
#: Angstrom, and the mean log gf.
FOREST_ATOMS = [
    ("Fe", 1, (0.8, 5.5), 1500, -2.1),
    ("Fe", 2, (2.5, 6.0), 200, -2.7),
    ("Ti", 1, (0.0, 3.0), 180, -1.7),
    ("Ti", 2, (0.5, 3.5), 120, -1.8),
    ("Cr", 1, (0.9, 4.5), 220, -1.7),
    ("Ni", 1, (1.6, 5.8), 150, -1.7),
    ("V", 1, (0.0, 2.5), 120, -1.5),
    ("Co", 1, (0.9, 4.5), 120, -1.6),
    ("Mn", 1, (2.0, 5.0), 60, -1.4),
    ("Ca", 1, (1.9, 5.0), 25, -1.3),
    ("Si", 1, (4.9, 6.7), 15, -1.2),
    ("Mg", 1, (4.3, 6.7), 6, -1.7),
    ("Y", 2, (0.1, 2.0), 40, -1.0),
]
FOREST_SEED = 20240229  # fixed: every simulation has the same synthetic transitions
TABLE_BEGINS = 3450.0  # vacuum Angstrom; the forest stands in for the table of atomic lines below


@cache
def forest_lines(minimum: float, maximum: float) -> LineTable:
    """A fixed, seeded SYNTHETIC forest of atomic lines in the ultraviolet, where the table has none.

    It only shows in the templates of galaxies. Each species draws its lines from a generator of its own over 1000 to
    20000 Angstrom, so that any window shows the same transitions.
    """
    species, tables = [], []
    for number, (element, ion, (low, high), density, mean_log_gf) in enumerate(FOREST_ATOMS):
        generator = np.random.default_rng([FOREST_SEED, number])
        wavelength = np.exp(generator.uniform(np.log(1000.0), np.log(20000.0), 60000))
        expected = density / 500.0 * np.clip(wavelength / 4000.0, 0.6, 1.0) * wavelength * np.log(20.0) / 60000
        excitation = generator.uniform(low, high, 60000)
        log_gf = mean_log_gf + generator.normal(0.0, 0.6, 60000) + 0.25 * (excitation - low)
        is_kept = generator.random(60000) < expected
        is_kept &= (wavelength > minimum) & (wavelength < min(maximum, TABLE_BEGINS))
        tables.append(np.stack([wavelength, np.minimum(log_gf, 0.0), excitation])[:, is_kept])
        species += [(element, ion)] * int(is_kept.sum())
    return LineTable(species, *np.concatenate(tables, axis=1))


#: Where high resolution shows lines one by one, GALAH's CCDs and APOGEE's chips (vacuum Angstrom): molecular_lines.csv
#: has the places of these molecules' lines. Elsewhere, and of the others everywhere, band heads are real and lines are
#: not.
HIGH_RESOLUTION = ((4700.0, 4925.0), (5630.0, 5900.0), (6455.0, 6760.0), (7560.0, 7920.0), (15000.0, 17100.0))
TABULATED = ("C2", "CN", "CO", "MgH", "OH")


@cache
def molecular_lines(minimum: float, maximum: float) -> LineTable:
    """Lines of molecules between two vacuum wavelengths; `log_gf` is relative strength only.

    Tabulated where resolution is high; elsewhere a fixed, seeded SYNTHETIC set that crowds towards real band heads.
    """
    rows = read_csv("molecular_lines.csv")
    species = [(row["molecule"], 0) for row in rows]
    columns = ("wavelength", "log_strength", "excitation")
    tables = [np.array([[float(row[name]) for row in rows] for name in columns])]
    for number, (molecule, bands) in enumerate(sorted(MOLECULAR_BANDS.items())):
        generator = np.random.default_rng([FOREST_SEED, 1000 + number])
        for head, extent, strength in bands:
            count = int(abs(extent) * 3.0)
            away = generator.random(count) ** 2
            log_strength = np.log10(strength * (1.05 - away)) + generator.normal(0.0, 0.25, count)
            wavelength, excitation = head + extent * away, generator.uniform(0.0, 0.8, count)
            is_kept = np.full(count, True)
            for low, high in HIGH_RESOLUTION if molecule in TABULATED else ():
                is_kept &= (wavelength < low) | (wavelength > high)
            tables.append(np.stack([wavelength, log_strength, excitation])[:, is_kept])
            species += [(molecule, 0)] * int(is_kept.sum())
    wavelength, log_gf, excitation = np.concatenate(tables, axis=1)
    is_inside = (wavelength > minimum) & (wavelength < maximum)
    inside = [name for name, kept in zip(species, is_inside) if kept]
    return LineTable(inside, wavelength[is_inside], log_gf[is_inside], excitation[is_inside])
