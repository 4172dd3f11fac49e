"""Stellar spectra from labels: continuum x lines on a logarithmic vacuum grid in the star's rest frame.

One model serves all surveys; a `StarModel` holds it for one wavelength range. The optical depth of a line is its
opacity over the continuum's (Boltzmann and Saha factors, abundance, oscillator strength), and the flux runs from
the continuum to that of the surface layer as 1 / (1 + optical depth) (Minnaert's formula), which gives a curve of
growth. Lines are summed beforehand into one row per species and excitation energy, so that a batch of stars is one
matrix product.

Simplifications: one layer, LTE, and with it one factor on the opacities of all line cores, and a power of those of
hydrogen, which many layers would give (`stratified`); one line width for all, wider where the sampling is; constant
partition functions; molecules as exponentials in 5040 K / Teff; a synthetic forest (see lines.py) below 3450 Angstrom.
So lines stand where real ones do and follow Teff, logg and abundances as they do: three real GALAH stars of known
labels are met to 1.2 to 2.8 times their noise, CCD by CCD, cores of H alpha and H beta aside, which are too bright (no
chromosphere). Abundances measured with these models would be biased all the same.
"""

from functools import cache

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from .lines import LineTable, atomic_lines, forest_lines, hydrogen_series, molecular_lines
from .opacity import (
    ALPHA_ELEMENTS,
    BOLTZMANN,
    ELEMENTS,
    eddington_barbier,
    electron_pressure,
    ionised_fraction,
    rosseland_mean,
    series_edges,
    stage_fraction,
    stimulated_emission,
)


NARROWEST_WIDTH = 2.4  # km/s, the b of exp(-(v/b)^2); wider where the sampling is coarser
HYDROGEN_WIDTH = 18.0  # km/s
CORE_FACTOR = 0.3  # on opacities of line cores, as one layer stands for all: best for three real GALAH stars
INFRARED_FACTOR = 0.8  # beyond 12000 Angstrom: published templates of APOGEE's giants and dwarfs fit best
LINE_TEMPERATURE = 0.92  # of Teff: where lines form
DAMPING = 1.5e-3  # Voigt parameter of the Sun for NARROWEST_WIDTH, van der Waals, strong lines
WINGED = 4.0  # lines stronger than this (log gf - excitation in eV + log abundance) have wings
WING_REACH = 3000.0  # km/s
HYDROGEN_EXPONENT, HYDROGEN_FACTOR, HYDROGEN_SLOPE = 0.32, 1.1, -1.4  # of its lines' darkness, see `stratified`

#: molecule -> (theta where lines are of order unity deep, slope in dex per unit of theta, exponent of the metal
#: abundance, of gravity, largest optical depth); theta = 5040 K / Teff. Fitted by eye to the M, K and G sequence.
MOLECULES = {
    "CH": (0.90, 3.5, 0.9, 0.0, 2.5),
    "CN": (1.00, 3.0, 1.5, -0.12, 1.5),
    "C2": (1.25, 3.0, 1.8, 0.0, 0.6),
    "MgH": (1.12, 5.0, 0.8, 0.25, 2.0),
    "CaH": (1.42, 6.0, 0.6, 0.30, 3.0),
    "TiO": (1.30, 14.0, 1.2, 0.0, 15.0),
    "CO": (1.48, 3.5, 1.0, -0.15, 0.4),
    "OH": (1.50, 4.0, 0.8, -0.05, 0.35),
}


#: Gaussian width over v sin i: the second moment of a limb-darkened disc (linear, 0.6; Gray's chapter 18).
ROTATION_WIDTH = 0.47
BLOCK = 8


def equal_blocks(*arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Arrays cut along their first axis into blocks of exactly `BLOCK` rows, the last one filled up with its last row.

    Matrix products round differently for different shapes: with equal ones a spectrum does not depend, to the last
    bit, on how many others are made.
    """
    filled = [np.concatenate([array, np.repeat(array[-1:], -len(array) % BLOCK, axis=0)]) for array in arrays]
    return [tuple(array[first : first + BLOCK] for array in filled) for first in range(0, len(filled[0]), BLOCK)]


class StarModel:
    """Spectra of stars on `wavelength` (vacuum Angstrom, logarithmic, rest frame).

    Args:
        minimum, maximum: range in vacuum Angstrom.
        step: sampling in km/s.
    """

    def __init__(self, minimum: float, maximum: float, step: float):
        self.step, self.width = step, max(step, NARROWEST_WIDTH)
        self.core_factor = CORE_FACTOR * (NARROWEST_WIDTH / self.width)
        self.wavelength = np.exp(np.arange(np.log(minimum), np.log(maximum), step / SPEED_OF_LIGHT))
        self.rows: dict[tuple, np.ndarray] = {}
        self.wings: dict[tuple, np.ndarray] = {}
        margin = (0.99 * minimum, 1.01 * maximum)
        self._add_lines(atomic_lines())
        self._add_lines(forest_lines(*margin))
        self._add_lines(molecular_lines(*margin))
        self._add_hydrogen()
        rows = {**self.rows, **self.wings}
        self.keys = sorted(rows, key=lambda key: key[0] == "H")  # hydrogen last
        self.num_metals = sum(name != "H" for name, *_ in self.keys)
        self.matrix = np.stack([rows[key] for key in self.keys]).astype(np.float32)
        self.hydrogen_level = (HYDROGEN_FACTOR * (self.wavelength / 5000.0) ** HYDROGEN_SLOPE).astype(np.float32)
        self.nodes = self._continuum_nodes(minimum, maximum)
        self.node_index = np.clip(np.searchsorted(self.nodes, self.wavelength) - 1, 0, len(self.nodes) - 2)
        width = self.nodes[self.node_index + 1] - self.nodes[self.node_index]
        self.node_fraction = ((self.wavelength - self.nodes[self.node_index]) / width).astype(np.float32)

    @staticmethod
    def _continuum_nodes(minimum: float, maximum: float) -> np.ndarray:
        """Coarse wavelengths for the continuum, doubled at the series limits where it jumps."""
        edges = [edge + shift for edge in series_edges()[1:3] for shift in (-1.0, 1.0)]
        inside = [edge for edge in edges if minimum < edge < maximum]
        return np.unique(np.concatenate([np.geomspace(0.999 * minimum, 1.001 * maximum, 80), inside]))

    def _add_lines(self, lines: LineTable) -> None:
        """Add each line's Doppler core, and a strong one's Lorentz wing, to the row of its species and energy."""
        is_near = (lines.wavelength > 0.985 * self.wavelength[0]) & (lines.wavelength < 1.015 * self.wavelength[-1])
        for index in np.flatnonzero(is_near):
            (name, ion), center = lines.species[index], lines.wavelength[index]
            level = round(lines.excitation[index])
            strength = 10.0 ** (lines.log_gf[index] - (lines.excitation[index] - level))
            if ion:  # 0.02654 = pi e^2 / (m c) in cm2 Hz; the molecules' strengths are relative
                strength *= self.core_factor * 0.02654 * center * 1e-8 / (np.sqrt(np.pi) * self.width * 1e5)
            strength *= INFRARED_FACTOR if center > 12000.0 else 1.0
            key = (name, ion, level)
            part, velocity = self._around(center, 5.0 * self.width)
            row = self.rows.setdefault(key, np.zeros(len(self.wavelength)))
            row[part] += strength * np.exp(-((velocity / self.width) ** 2))
            if ion and lines.log_gf[index] - lines.excitation[index] + ELEMENTS[name][0] > WINGED:
                part, velocity = self._around(center, WING_REACH)
                profile = NARROWEST_WIDTH * self.width / (velocity**2 + (2.0 * self.width) ** 2) / np.sqrt(np.pi)
                row = self.wings.setdefault((*key, "wing"), np.zeros(len(self.wavelength)))
                row[part] += (
                    strength
                    / self.core_factor
                    * profile
                    * np.clip(2.0 - 2.0 * np.abs(velocity) / WING_REACH, 0.0, 1.0)
                )

    def _add_hydrogen(self) -> None:
        """Add Balmer, Paschen and Brackett lines: Doppler cores, and wings of the linear Stark effect (Holtsmark)."""
        for lower, highest in ((2, 26), (3, 24), (4, 26)):
            core, wing = np.zeros(len(self.wavelength)), np.zeros(len(self.wavelength))
            for upper, (center, strength, stark) in enumerate(zip(*hydrogen_series(lower, highest)), lower + 1):
                dissolved = 1.0 / (1.0 + (upper / 14.0) ** 6)  # high levels merge into the continuum (Inglis & Teller)
                if not 0.96 * self.wavelength[0] < center < 1.04 * self.wavelength[-1]:
                    continue
                strength = strength * dissolved
                part, velocity = self._around(center, 6.0 * HYDROGEN_WIDTH)
                peak = 0.02654 * strength * center * 1e-8 / (np.sqrt(np.pi) * HYDROGEN_WIDTH * 1e5)
                core[part] += peak * np.exp(-((velocity / HYDROGEN_WIDTH) ** 2))
                part, velocity = self._around(center, 9000.0)
                distance = velocity / SPEED_OF_LIGHT * center
                softening = 2.0 * HYDROGEN_WIDTH / SPEED_OF_LIGHT * center
                # Far wing per unit electron density: 1.5 (1.25e-9 ne^(2/3) K)^(3/2) distance^(-5/2) per Angstrom.
                profile = 1.5 * 4.42e-14 * stark**1.5 * (distance**2 + softening**2) ** -1.25
                wing[part] += 8.85e-21 * strength * center**2 * profile
            if core.any() or wing.any():
                self.rows[("H", lower, 0)] = core
                self.wings[("H", lower, 0, "wing")] = wing

    def _around(self, center: float, reach: float) -> tuple[slice, np.ndarray]:
        """Pixels within `reach` km/s of a wavelength, and their velocities from it in km/s."""
        middle = np.log(center / self.wavelength[0]) * SPEED_OF_LIGHT / self.step
        pixels = reach / self.step
        part = slice(max(0, int(middle - pixels)), max(0, min(len(self.wavelength), int(middle + pixels) + 2)))
        return part, (np.arange(part.start, part.stop) - middle) * self.step

    def weights(self, labels: dict[str, np.ndarray], pressure: np.ndarray, mean_opacity: np.ndarray) -> np.ndarray:
        """Strength of every row for every star, (stars, rows): population of the lower level per hydrogen atom."""
        temperature = LINE_TEMPERATURE * labels["teff"]
        theta = 5040.0 / temperature
        gas_pressure = (10.0 ** (labels["logg"] - 4.44) * 7.2e-25 / mean_opacity) ** 0.62
        damping = DAMPING * (0.08 + np.clip(gas_pressure, 0.0, 30.0))
        stage = cache(lambda name, ion: stage_fraction(name, ion, temperature, pressure))
        excited = cache(lambda level: 10.0 ** (-theta * level))
        hydrogen, columns = hydrogen_per_neutral(temperature, pressure), []
        for name, ion, level, *wing in self.keys:
            if name == "H":
                column = ion**2 * 10.0 ** (-theta * 13.598 * (1.0 - 1.0 / ion**2))
                column = column * (pressure / (BOLTZMANN * temperature) if wing else 1.0)
            elif ion == 0:
                column = molecular_strength(name, labels) * excited(level) * 8.0**level * mean_opacity
            else:
                log_abundance = ELEMENTS[name][0] - 12.0 + labels["fe_h"]
                log_abundance = log_abundance + (labels["alpha_m"] if name in ALPHA_ELEMENTS else 0.0)
                column = 10.0**log_abundance * (stage(name, ion) * excited(level)) * hydrogen
                column = column * (damping if wing else 1.0)
            columns.append(column)
        return np.stack(columns, axis=1)

    def spectra(self, labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Flux and continuum, each (stars, pixels) float32, per unit wavelength, 1 near a Sun at 5000 Angstrom.

        `labels` holds arrays (stars,): teff in K, logg in dex cm/s2, fe_h and alpha_m in dex.
        """
        labels = {name: np.asarray(labels[name], dtype=np.float64) for name in ("teff", "logg", "fe_h", "alpha_m")}
        blocks = [self._block(dict(zip(labels, block))) for block in equal_blocks(*labels.values())]
        count = len(labels["teff"])
        return tuple(np.concatenate(parts)[:count] for parts in zip(*blocks))

    def _block(self, labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """`spectra` of `BLOCK` stars."""
        pressure = electron_pressure(labels["teff"], labels["logg"], labels["fe_h"])
        mean_opacity = rosseland_mean(0.95 * labels["teff"], pressure)
        continuum, surface, opacity = eddington_barbier(self.nodes, labels["teff"], pressure)
        # Scaled so that single precision neither overflows nor vanishes: opacities are some 1e-25.
        weights = self.weights(labels, pressure, mean_opacity) / mean_opacity[:, None]
        metals, hydrogen = np.split(weights.astype(np.float32), [self.num_metals], axis=1)
        relative = self._on_pixels(self.relative_opacity(labels, mean_opacity, opacity).astype(np.float32))
        depth = np.matmul(metals, self.matrix[: self.num_metals]) * relative
        if hydrogen.size:
            depth_of_hydrogen = np.matmul(hydrogen, self.matrix[self.num_metals :]) * relative
            floor = hydrogen_floor(labels["teff"]).astype(np.float32)[:, None]
            depth += self.hydrogen_level * stratified(depth_of_hydrogen, floor)
        continuum, surface = (self._on_pixels(values.astype(np.float32)) for values in (continuum, surface))
        return surface + (continuum - surface) / (1.0 + depth), continuum

    def relative_opacity(self, labels: dict[str, np.ndarray], mean: np.ndarray, opacity: np.ndarray) -> np.ndarray:
        """What turns `weights` over the mean opacity into optical depths, (stars, nodes)."""
        return mean[:, None] / opacity * stimulated_emission(self.nodes, LINE_TEMPERATURE * labels["teff"])

    def _on_pixels(self, values: np.ndarray) -> np.ndarray:
        """Values at the continuum's nodes, linearly interpolated: (stars, nodes) -> (stars, pixels)."""
        step = np.diff(values, axis=1)
        return values[:, self.node_index] + self.node_fraction * step[:, self.node_index]


def hydrogen_per_neutral(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """All hydrogen over neutral hydrogen: opacities are per neutral atom, abundances per atom of either kind."""
    return 1.0 + ionised_fraction(temperature, pressure, 13.598, 0.5)


def hydrogen_floor(teff: np.ndarray) -> np.ndarray:
    """The optical depth (stars,) below which hydrogen's lines are as deep as one layer would make them."""
    return np.clip(7e-4 * (teff / 5777.0) ** 12, 5e-5, 0.5)


def stratified(depth, floor):
    """The depth of one layer that is as dark as hydrogen's lines are, whose lower levels are hardly there higher up.

    A level at 10 eV thins out by a factor of a hundred from the continuum's layer to the surface, so that with ten
    times the opacity a line is seen only a little higher: its darkness grows as a small power of the opacity, over
    five decades. A grey atmosphere, integrated, has such a power, and it ends as `hydrogen_floor` does with
    temperature; the numbers are those that fit H alpha to H delta of 89 Kurucz models of 5000 to 7000 K (SDSS's
    standard stars) best, and Brackett lines of APOGEE's published dwarfs. `depth` (stars, pixels) and `floor` (stars,
    1) are arrays or tensors.
    """
    return (floor + depth) ** HYDROGEN_EXPONENT - floor**HYDROGEN_EXPONENT


def molecular_strength(name: str, labels: dict[str, np.ndarray]) -> np.ndarray:
    """Optical depth scale of a molecule (stars,), which saturates smoothly (its rarer atom is used up)."""
    center, slope, metal_exponent, gravity_exponent, largest = MOLECULES[name]
    logarithm = slope * (5040.0 / labels["teff"] - center) + gravity_exponent * (labels["logg"] - 4.44)
    logarithm = logarithm + metal_exponent * (labels["fe_h"] + 0.5 * labels["alpha_m"])
    strength = 10.0 ** np.clip(logarithm, -8.0, 8.0)
    return strength / (1.0 + strength / largest)


@cache
def star_model(minimum: float, maximum: float, step: float) -> StarModel:
    """The model of a wavelength range, built once per process."""
    return StarModel(minimum, maximum, step)
