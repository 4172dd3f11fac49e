"""The continuum of a stellar atmosphere: Saha and Boltzmann factors, continuous opacity, Eddington-Barbier flux.

A grey atmosphere, one electron pressure, local thermodynamic equilibrium: the flux at a wavelength is the Planck
function where that wavelength's optical depth is 2/3. This gives the H- hump, the Balmer and Paschen jumps and
the colours to the accuracy a simulation needs. Pressures in dyn/cm2, opacities in cm2 per neutral hydrogen atom,
wavelengths in vacuum Angstrom. Formulae: Gray, The Observation and Analysis of Stellar Photospheres, chapters 1, 8.
"""

import numpy as np


#: Neutral and singly ionised atoms: log10 abundance (H = 12; Asplund et al. 2009), first and second ionisation
#: energy in eV, partition functions of the neutral atom and of the ion near 5500 K (constants: a simplification).
ELEMENTS = {
    "He": (10.93, 24.59, 54.42, 1.0, 2.0),
    "Li": (1.80, 5.39, 75.6, 2.1, 1.0),
    "C": (8.43, 11.26, 24.38, 9.3, 5.9),
    "O": (8.69, 13.62, 35.12, 8.7, 4.0),
    "Na": (6.24, 5.14, 47.29, 2.1, 1.0),
    "Mg": (7.60, 7.65, 15.04, 1.0, 2.0),
    "Al": (6.45, 5.99, 18.83, 5.9, 1.0),
    "Si": (7.51, 8.15, 16.35, 9.5, 5.7),
    "S": (7.12, 10.36, 23.33, 8.2, 4.2),
    "K": (5.03, 4.34, 31.63, 2.2, 1.0),
    "Ca": (6.34, 6.11, 11.87, 1.2, 2.2),
    "Sc": (3.15, 6.56, 12.80, 12.0, 23.0),
    "Ti": (4.95, 6.83, 13.58, 30.0, 56.0),
    "V": (3.93, 6.75, 14.66, 45.0, 43.0),
    "Cr": (5.64, 6.77, 16.49, 10.5, 7.2),
    "Mn": (5.43, 7.43, 15.64, 6.4, 7.7),
    "Fe": (7.50, 7.90, 16.19, 27.0, 42.0),
    "Co": (4.99, 7.88, 17.08, 33.0, 29.0),
    "Ni": (6.22, 7.64, 18.17, 30.0, 10.5),
    "Cu": (4.19, 7.73, 20.29, 2.3, 1.0),
    "Zn": (4.56, 9.39, 17.96, 1.0, 2.0),
    "Sr": (2.87, 5.69, 11.03, 1.3, 2.2),
    "Y": (2.21, 6.22, 12.24, 11.5, 15.0),
    "Zr": (2.58, 6.63, 13.13, 40.0, 50.0),
    "Mo": (1.88, 7.09, 16.16, 9.0, 7.0),
    "Ru": (1.75, 7.36, 16.76, 30.0, 20.0),
    "Ba": (2.18, 5.21, 10.00, 2.2, 3.5),
    "La": (1.10, 5.58, 11.06, 30.0, 28.0),
    "Ce": (1.58, 5.54, 10.85, 60.0, 120.0),
    "Nd": (1.42, 5.53, 10.73, 60.0, 110.0),
    "Sm": (0.96, 5.64, 11.07, 30.0, 60.0),
    "Eu": (0.52, 5.67, 11.24, 9.0, 12.0),
}
ALPHA_ELEMENTS = ("O", "Mg", "Si", "S", "Ca", "Ti")
SURFACE_TEMPERATURE = 0.74  # of Teff; a grey atmosphere has 0.84, real line cores are darker
BOLTZMANN = 1.380649e-16  # erg/K


def planck(wavelength: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Planck function per unit wavelength, in units of its value for 5000 Angstrom and 5777 K."""
    exponent = np.minimum(1.438777e8 / (wavelength * temperature), 200.0)
    return (5000.0 / wavelength) ** 5 * np.expm1(1.438777e8 / (5000.0 * 5777.0)) / np.expm1(exponent)


def electron_pressure(teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray) -> np.ndarray:
    """Electron pressure near optical depth 2/3 in dyn/cm2: a power law through the Sun (20) and A stars (some 500).

    Where hydrogen is neutral the electrons come from metals, so that their pressure follows [Fe/H].
    """
    from_metals = 1.0 / (1.0 + (teff / 6200.0) ** 12)
    logarithm = 1.3 + 6.5 * np.log10(teff / 5777.0) + 0.42 * (logg - 4.44) + 0.35 * fe_h * from_metals
    return 10.0 ** np.clip(logarithm, -3.0, 4.0)


def ionised_fraction(temperature, pressure, energy, partition_ratio) -> np.ndarray:
    """N(ion) / N(atom) from Saha's equation; `partition_ratio` is U(ion) / U(atom)."""
    logarithm = 2.5 * np.log10(temperature) - 5040.0 / temperature * energy - 0.1762 + np.log10(partition_ratio)
    return 10.0 ** np.clip(logarithm - np.log10(pressure), -30.0, 30.0)


def stage_fraction(element: str, ion: int, temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Fraction of an element that stands in ionisation stage 1 (neutral) or 2, divided by its partition function."""
    _, first, second, neutral, ionised = ELEMENTS[element]
    once = ionised_fraction(temperature, pressure, first, ionised / neutral)
    twice = once * ionised_fraction(temperature, pressure, second, 1.0)
    whole = 1.0 + once + twice
    return 1.0 / (whole * neutral) if ion == 1 else once / (whole * ionised)


def continuous_opacity(wavelength: np.ndarray, temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Absorption in cm2 per neutral hydrogen atom: H- bound-free and free-free, of H, and scattering.

    `wavelength` (nodes,), `temperature` and `pressure` (stars,) -> (stars, nodes). Gray's equations 8.8 to 8.15;
    electrons scatter as Thomson found and hydrogen atoms as Rayleigh did (Dalgarno 1962, as in Kurucz's ATLAS).
    """
    theta = (5040.0 / temperature)[:, None]
    pressure = pressure[:, None]
    bounded = np.clip(wavelength, 2250.0, 14500.0)
    coefficients = [1.99654, -1.18267e-5, 2.64243e-6, -4.40524e-10, 3.23992e-14, -1.39568e-18, 2.78701e-23]
    cross_section = np.maximum(np.polynomial.polynomial.polyval(bounded, coefficients), 0.0)
    cross_section = cross_section * np.clip((16420.0 - wavelength) / 1920.0, 0.0, 1.0) ** 1.5 * 1e-18
    bound_free = 4.158e-10 * cross_section * pressure * theta**2.5 * 10.0 ** (0.754 * theta)
    logarithm, log_theta = np.log10(np.clip(wavelength, 1823.0, 1e5)), np.log10(theta)
    zeroth = -2.2763 - 1.6850 * logarithm + 0.76661 * logarithm**2 - 0.0533464 * logarithm**3
    first = 15.2827 - 9.2846 * logarithm + 1.99381 * logarithm**2 - 0.142631 * logarithm**3
    second = -197.789 + 190.266 * logarithm - 67.9775 * logarithm**2 + 10.6913 * logarithm**3
    second = second - 0.625151 * logarithm**4
    free_free = 1e-26 * pressure * 10.0 ** (zeroth + first * log_theta + second * log_theta**2)
    stimulated = stimulated_emission(wavelength, temperature)
    ionised = ionised_fraction(temperature[:, None], pressure, 13.598, 0.5)
    scattering = 0.6652e-24 * ionised + rayleigh_scattering(wavelength)
    return (bound_free + hydrogen_absorption(wavelength, theta)) * stimulated + free_free + scattering


def stimulated_emission(wavelength: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """What it leaves of an absorption, (stars, nodes): 1 - exp(-h nu / k T)."""
    return -np.expm1(-np.minimum(1.438777e8 / (wavelength * temperature[:, None]), 200.0))


def rayleigh_scattering(wavelength: np.ndarray) -> np.ndarray:
    """Cross section in cm2 of a hydrogen atom in its ground state; level blueward of Lyman alpha, where it diverges."""
    square = np.maximum(wavelength, 1217.0) ** -2.0
    return (5.799e-13 + (1.422e-6 + 2.784 * square) * square) * square**2


def series_edges() -> np.ndarray:
    """Where each series of hydrogen turns into a continuum, levels 1 to 6: 1.5 per cent redward of the limit.

    The highest lines of a series are merged there, which the line table does not hold.
    """
    return 911.75 * 1.015 * np.arange(1, 7) ** 2


def hydrogen_absorption(wavelength: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Bound-free and free-free opacity of hydrogen (Kramers with unit Gaunt factors): levels 1 to 6 one by one."""
    absorption = np.zeros(np.broadcast_shapes(wavelength.shape, theta.shape))
    for level in range(1, 7):
        energy = 13.598 * (1.0 - 1.0 / level**2)
        can_ionise = wavelength < series_edges()[level - 1]
        absorption = absorption + np.where(can_ionise, 10.0 ** (-theta * energy) / level**3, 0.0)
    # Levels from 7 on, and the free electrons above them: the two integrals meet at the ionisation energy.
    highest = 10.0 ** (-theta * 13.598 * (1.0 - 1.0 / 49.0))
    absorption = absorption + 0.4343 / (2.0 * theta * 13.598) * highest
    return 1.0449e-26 * wavelength**3 * absorption


def rosseland_mean(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Harmonic mean of the continuous opacity weighted with the Planck function's temperature derivative (stars,)."""
    nodes = np.geomspace(1000.0, 60000.0, 120)
    opacity = continuous_opacity(nodes, temperature, pressure)
    weight = planck(nodes, 1.01 * temperature[:, None]) - planck(nodes, 0.99 * temperature[:, None])
    weight = weight * nodes
    return weight.sum(axis=1) / (weight / opacity).sum(axis=1)


def eddington_barbier(wavelength: np.ndarray, teff: np.ndarray, pressure: np.ndarray) -> tuple[np.ndarray, ...]:
    """Continuum flux, the flux of the surface layer (what a saturated line shows) and the opacity, (stars, nodes)."""
    opacity = continuous_opacity(wavelength, 0.95 * teff, pressure)
    ratio = rosseland_mean(0.95 * teff, pressure)[:, None] / opacity
    temperature = teff[:, None] * (0.5 * (np.clip(ratio, 0.02, 8.0) + 1.0)) ** 0.25
    # Lines of the infrared form deeper, where H- is most transparent.
    layer = SURFACE_TEMPERATURE + 0.06 * np.clip((wavelength - 9000.0) / 5000.0, 0.0, 1.0)
    surface = planck(wavelength, layer * teff[:, None])
    return planck(wavelength, temperature), surface, opacity
