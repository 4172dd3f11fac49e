"""Stars: redrock's archetypes by type for the optical surveys, and stars with labels for GALAH and APOGEE.

A star with labels has the same labels in every survey that sees it. GALAH sees it through the package's line lists
and atmospheres. APOGEE sees giants through the Cannon model of Ness et al. (2015), which is a fit to real spectra,
and dwarfs through the networks of El-Badry et al. (2018), which are a fit to Kurucz models.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from spectral_tokenizer.data.simulation import apogee, galah
from spectral_tokenizer.data.simulation.opacity import eddington_barbier, electron_pressure, rosseland_mean
from spectral_tokenizer.data.simulation.population import DWARF_LOGG, DWARF_TEFF, draw_star, truncated_normal
from spectral_tokenizer.data.simulation.stars import ROTATION_WIDTH, StarModel, hydrogen_floor, stratified
from spectral_tokenizer.data.simulation.templates import optical_star_model
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT

from .dust import interstellar, transmission
from .random import Random
from .spectrographs import TEMPLATE_SMOOTHING, LogGrid, Spectrograph, broaden
from .template_files import STAR_TYPES, read_csv_columns, read_redrock, split_rows, split_shapes


GRID = LogGrid.from_range(3490.0, 10450.0, 10.0)
LABELS = ("teff", "logg", "fe_h", "alpha_m", "rotation")
GIANT_LOGG_LIMIT = 3.6  # the Cannon's training set ends at 3.57


class Archetypes:
    """redrock's star templates A, B, F, G, K, M and WD with their archetypes' coefficients, behind some dust.

    An archetype that is negative in more than a hundredth of the optical range is left out; elsewhere what is
    negative is zero.
    Cataclysmic variables are left out: the file has three noisy mean spectra and no coefficients.
    """

    def __init__(self, folder: Path, device):
        self.bases, self.rows, self.dust_law = [], [], interstellar(GRID.wavelength, device)
        for kind in STAR_TYPES:
            basis, coefficients, _ = read_redrock(folder / f"redrock/rrtemplate-STAR-{kind}-v0.1.fits", GRID)
            window = (GRID.wavelength > 5800.0) & (GRID.wavelength < 6300.0)
            level = coefficients @ basis[:, window].mean(axis=1)
            coefficients = coefficients / level[:, None]
            optical = (GRID.wavelength > 3600.0) & (GRID.wavelength < 9800.0)
            is_good = (coefficients @ basis[:, optical] < 0.0).mean(axis=1) <= 0.01
            rows = split_shapes(f"redrock star {kind}", coefficients)
            self.rows.append({split: part[is_good[part]] for split, part in rows.items()})
            self.bases.append(
                tuple(torch.as_tensor(each, dtype=torch.float32, device=device) for each in (basis, coefficients))
            )

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        kinds = random.numpy.integers(len(STAR_TYPES), size=len(redshift))
        rows = np.array([random.numpy.choice(self.rows[kind][split]) for kind in kinds], dtype=np.int64)
        dust = np.minimum(random.numpy.exponential(0.25, len(redshift)), 2.5)
        return {"types": torch.as_tensor(kinds), "rows": torch.as_tensor(rows), "dust": random.device_tensor(dust)}

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        dust = parameters["dust"]
        flux = dust.new_empty(len(dust), GRID.size)
        for kind in parameters["types"].unique().tolist():
            members = (parameters["types"] == kind).nonzero().squeeze(-1)
            basis, coefficients = self.bases[kind]
            flux[members.to(flux.device)] = (coefficients[parameters["rows"][members]] @ basis).clamp_min(0.0)
        return flux * transmission(dust, self.dust_law)


class TorchStarModel:
    """The package's `StarModel` with the large matrix product on any device."""

    def __init__(self, model: StarModel, device):
        self.model, self.device = model, device
        self.grid = LogGrid(float(np.log(model.wavelength[0])), model.step / SPEED_OF_LIGHT, len(model.wavelength))
        self.matrix = torch.as_tensor(model.matrix, device=device)
        self.hydrogen_level = torch.as_tensor(model.hydrogen_level, device=device)
        self.index = torch.as_tensor(model.node_index, device=device)
        self.fraction = torch.as_tensor(model.node_fraction, device=device)

    def spectra(self, labels: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Flux and continuum, each (stars, pixels): `StarModel.spectra` without its blocks."""
        teff = labels["teff"]
        pressure = electron_pressure(teff, labels["logg"], labels["fe_h"])
        mean_opacity = rosseland_mean(0.95 * teff, pressure)
        continuum, surface, opacity = eddington_barbier(self.model.nodes, teff, pressure)
        weights = self.model.weights(labels, pressure, mean_opacity) / mean_opacity[:, None]
        metals, hydrogen = self.tensor(weights).tensor_split([self.model.num_metals], dim=1)
        of_metals, of_hydrogen = self.matrix.tensor_split([self.model.num_metals])
        relative = self.on_pixels(self.model.relative_opacity(labels, mean_opacity, opacity))
        depth = metals @ of_metals * relative
        if hydrogen.numel():
            floor = self.tensor(hydrogen_floor(teff))[:, None]
            depth += self.hydrogen_level * stratified(hydrogen @ of_hydrogen * relative, floor)
        continuum, surface = self.on_pixels(continuum), self.on_pixels(surface)
        return surface + (continuum - surface) / (1.0 + depth), continuum

    def on_pixels(self, values: np.ndarray) -> Tensor:
        values = self.tensor(values)
        return torch.lerp(values.index_select(1, self.index), values.index_select(1, self.index + 1), self.fraction)

    def tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32).to(self.device)


class LabelledStars:
    """Stars with labels as any survey sees them: the package's physics throughout. Subclasses replace parts of it."""

    def __init__(self, device):
        self.device = device

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        rows = [draw_star(random.numpy, "shared")[0] for _ in redshift]
        names = (*LABELS, "extinction")
        return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in names}

    @cached_property
    def optical(self) -> TorchStarModel:
        return TorchStarModel(optical_star_model(), self.device)

    @cached_property
    def infrared(self) -> TorchStarModel:
        return TorchStarModel(apogee.model(), self.device)

    @cached_property
    def ccds(self) -> list[TorchStarModel]:
        return [TorchStarModel(model, self.device) for model in galah.models().values()]

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        """Optical spectra on `GRID` for SDSS and DESI."""
        flux, _ = self.optical.spectra(as_arrays(parameters))
        grid = self.optical.grid
        flux = broaden(flux, torch.full((len(flux),), TEMPLATE_SMOOTHING, device=flux.device), grid)
        flux = flux * transmission(
            parameters["extinction"].float().to(flux.device), interstellar(grid.wavelength, flux.device)
        )
        position = (GRID.start - grid.start + GRID.step * np.arange(GRID.size)) / grid.step
        position = np.clip(position, 0.0, grid.size - 1.001)  # level beyond the model's ends, which no survey sees
        index = torch.as_tensor(position.astype(int), device=flux.device)
        fraction = torch.as_tensor(position, device=flux.device).float() - index
        return torch.lerp(flux.index_select(1, index), flux.index_select(1, index + 1), fraction)

    def apogee_flux(self, spectrograph: Spectrograph, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Flux relative to the continuum on APOGEE's pixels (NaN where no template reaches), and the continuum."""
        flux, continuum = self.infrared.spectra(as_arrays(parameters))
        flux = broaden(flux / continuum, rotation_sigma(parameters, flux.device), self.infrared.grid)
        rest = torch.zeros(len(flux), dtype=torch.float64)
        return spectrograph.resolve(flux, self.infrared.grid, rest), self.continuum(spectrograph, parameters)

    def continuum(self, spectrograph: Spectrograph, parameters: dict[str, Tensor]) -> Tensor:
        """Continuum level on a survey's nominal pixels, near 1."""
        nodes = np.geomspace(spectrograph.wavelength_array.min(), spectrograph.wavelength_array.max(), 40)
        labels = as_arrays(parameters)
        pressure = electron_pressure(labels["teff"], labels["logg"], labels["fe_h"])
        level, _, _ = eddington_barbier(nodes, labels["teff"], pressure)
        dust = parameters["extinction"].float()
        level = torch.as_tensor(level / np.median(level, axis=1, keepdims=True)).float() * transmission(
            dust, interstellar(nodes)
        )
        position = np.interp(spectrograph.wavelength_array, nodes, np.arange(len(nodes)))
        index = torch.as_tensor(np.minimum(position.astype(int), len(nodes) - 2), device=self.device)
        fraction = torch.as_tensor(position, device=self.device).float() - index
        level = level.to(self.device)
        return torch.lerp(level.index_select(1, index), level.index_select(1, index + 1), fraction)

    def galah_flux(
        self, spectrograph: Spectrograph, parameters: dict[str, Tensor], redshift: Tensor, offset: Tensor
    ) -> Tensor:
        """Flux of the four CCDs on their pixels, each about 1."""
        labels, width, parts = as_arrays(parameters), rotation_sigma(parameters, self.device), []
        for number, model in enumerate(self.ccds):
            flux, continuum = model.spectra(labels)
            flux = broaden(flux, width, model.grid)
            flux = flux / continuum.mean(dim=1, keepdim=True)
            parts.append(spectrograph.resolve_part(number, flux, model.grid, redshift, offset[:, number]))
        return torch.cat(parts, dim=1)


class TemplateStars(LabelledStars):
    """Giants as the Cannon model has them in APOGEE, dwarfs as the networks have them.

    The giants' labels are those of real stars (APOKASC's training set and, where its table is found, APOGEE DR12)
    with some jitter, as long as they lie in the range of the Cannon's training labels and near one of them: a
    quadratic model must not be asked beyond its data. The dwarfs stay inside the networks' box. Between logg 3.6 and
    4 there is no star: neither model is fit for it.
    """

    giants = 0.6
    jitter = np.array([60.0, 0.12, 0.08, 0.03])
    unit = np.array([150.0, 0.3, 0.2, 0.08])
    farthest = 1.0  # in `unit`, from a star of the training set

    def __init__(self, folder: Path, device):
        super().__init__(device)
        cannon = folder / "apogee_cannon_apokasc"
        name = "trained_apokasc_gc_ind_feh_fix"
        self.coefficients = torch.as_tensor(np.loadtxt(cannon / f"{name}.txt"), dtype=torch.float32, device=device)
        self.baseline = np.loadtxt(cannon / f"{name}_baseline_labels.txt")
        known = np.loadtxt(cannon / "training_apokasc_gc_ind_feh_fix.txt", usecols=(1, 2, 3, 4))
        self.low, self.high = np.percentile(known, [1.0, 99.0], axis=0)
        self.high[1] = GIANT_LOGG_LIMIT  # the percentile is 3.22 and would leave the subgiants' foot out
        known = known[self.is_inside(known)]
        self.known = cKDTree(known / self.unit)
        tables = [known]
        table = folder.parent / "spectra/apogee/labels/apogee_dr12_labels.csv"
        if table.exists():
            more = read_csv_columns(table, ("TEFF", "LOGG", "PARAM_M_H", "PARAM_ALPHA_M"))
            tables.append(more[self.is_inside(more) & self.is_near(more)])
        self.giant_labels = np.concatenate(tables)
        self.rows = split_rows("APOGEE giants", len(self.giant_labels))
        with np.load(folder / "binspec_apogee_nn/NN_normalized_spectra.npz") as network:
            self.network = {
                key: torch.as_tensor(network[key], dtype=torch.float32, device=device) for key in network.files
            }
        wavelength = np.load(folder / "binspec_apogee_nn/apogee_wavelength.npz")["wavelength"]
        pixels = np.round((np.log10(wavelength) - apogee.FIRST_LOGLAM) / apogee.LOG_STEP).astype(int)
        self.pixels = torch.as_tensor(pixels, device=device)

    def is_inside(self, labels: np.ndarray) -> np.ndarray:
        return ((labels > self.low) & (labels < self.high)).all(axis=1)

    def is_near(self, labels: np.ndarray) -> np.ndarray:
        distance, _ = self.known.query(labels / self.unit)
        return distance < self.farthest

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        generator, count = random.numpy, len(redshift)
        is_giant = generator.random(count) < self.giants
        labels, rows = self.draw_giants(split, generator, count)
        labels = np.where(is_giant[:, None], labels, self.draw_dwarfs(generator, count))
        slow = 3.0 + generator.exponential(1.0, count)
        rotation = np.where(is_giant, slow, np.clip(1.0 + generator.exponential(3.0, count), 0.0, 25.0))
        extinction = np.minimum(generator.exponential(0.25, count), 2.5)
        values = dict(zip(LABELS, (*labels.T, rotation))) | {"extinction": extinction}
        parameters = {name: torch.as_tensor(each, dtype=torch.float64) for name, each in values.items()}
        return parameters | {"is_giant": torch.as_tensor(is_giant), "rows": torch.as_tensor(rows)}

    def draw_giants(self, split: str, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows = generator.choice(self.rows[split], count)
        labels = self.giant_labels[rows]
        for _ in range(20):
            moved = self.giant_labels[rows] + generator.normal(size=(count, 4)) * self.jitter
            is_good = self.is_inside(moved) & self.is_near(moved)
            labels = np.where(is_good[:, None] & (labels == self.giant_labels[rows]).all(1)[:, None], moved, labels)
        return labels, rows

    def draw_dwarfs(self, generator: np.random.Generator, count: int) -> np.ndarray:
        teff = truncated_normal(generator, 5500.0, 650.0, 4250.0, 6950.0, count)
        logg = truncated_normal(generator, np.interp(teff, DWARF_TEFF, DWARF_LOGG), 0.07, 4.02, 4.95)
        fe_h = truncated_normal(generator, -0.1, 0.25, -0.75, 0.36, count)
        alpha = np.clip(np.maximum(0.0, -0.25 * fe_h) + generator.normal(0.0, 0.05, count), -0.25, 0.45)
        return np.stack([teff, logg, fe_h, alpha], axis=1)

    def apogee_flux(self, spectrograph: Spectrograph, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels = torch.stack([parameters[name] for name in LABELS], dim=1)
        is_giant = parameters["is_giant"][:, None].to(self.device)
        flux = torch.where(is_giant, self.cannon(labels), self.dwarf_network(labels))
        whole = flux.new_full((len(flux), spectrograph.num_pixels), torch.nan)
        whole[:, self.pixels] = flux
        return whole, self.continuum(spectrograph, parameters)

    def cannon(self, labels: Tensor) -> Tensor:
        """Terms: 1, the four offsets from the baseline, and their products (Teff Teff, Teff logg, ...)."""
        offset = labels[:, :4] - torch.as_tensor(self.baseline)
        products = [offset[:, i] * offset[:, j] for i in range(4) for j in range(i, 4)]
        terms = torch.stack([torch.ones(len(offset), dtype=torch.float64), *offset.T, *products], dim=1)
        return terms.float().to(self.device) @ self.coefficients

    def dwarf_network(self, labels: Tensor) -> Tensor:
        """One small network per pixel: sigmoid of the scaled labels (Teff, logg, [Fe/H], [Mg/Fe], broadening)."""
        network = self.network
        low, high = network["x_min"], network["x_max"]
        # Giants are clamped into the box; their answer is not used.
        scaled = ((labels.float().to(self.device) - low) / (high - low)).clamp(0.0, 1.0) - 0.5
        hidden = torch.einsum("bi,phi->bph", scaled, network["w_array_0"]) + network["b_array_0"]
        return (hidden.sigmoid() * network["w_array_1"]).sum(-1) + network["b_array_1"]


def as_arrays(parameters: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: parameters[name].numpy() for name in ("teff", "logg", "fe_h", "alpha_m")}


def rotation_sigma(parameters: dict[str, Tensor], device) -> Tensor:
    """Gaussian width in km/s that stands for rotation, as in the package's simulator."""
    return (ROTATION_WIDTH * parameters["rotation"]).float().clamp_min(0.05).to(device)
