"""The canonical row: what every survey's reader yields and all that the rest of the package knows of a spectrum.

A row is one spectrum of one object on its native pixels, nothing resampled, nothing merged. Arrow stores rows;
`SpectralProcessor` takes them: its argument names are the column names of this file.
"""

from datasets import Features, List, Value


FRAMES = ("observed", "heliocentric", "barycentric", "rest")
CLASSES = ("GALAXY", "QSO", "STAR")

#: Columns that the processor reads.
#:
#: - ``wavelength``: vacuum Angstrom, strictly ascending inside each segment, in the frame named by ``frame``.
#: - ``flux``: in the survey's own unit, which its module says (1e-17 erg/s/cm2/A in SDSS and DESI, relative to each CCD's
#:   median in GALAH).
#: - ``ivar``: inverse variance of ``flux``. **0 means unusable**: this is the only statement about bad pixels;
#:   flux is finite everywhere and carries no meaning where ivar is 0.
#: - ``segment_lengths``: pixels per arm, chip or CCD in the order they stand in the arrays; they add up to the
#:   number of pixels. Arms that overlap in wavelength stay separate segments.
SPECTRUM = {
    "wavelength": List(Value("float64")),
    "flux": List(Value("float32")),
    "ivar": List(Value("float32")),
    "segment_lengths": List(Value("int32")),
}

#: The resolution, as physics instead of an instrument's name.
#:
#: - ``lsf_sigma``: sigma in vacuum Angstrom, at each pixel and in the row's frame, of the Gaussian that stands for the
#:   line spread function, pixel included. Positive everywhere in a segment, or 0 everywhere in it: unknown. Where a
#:   file has it for part of a segment's pixels, the rest is interpolated. An empty list where nothing is known (not
#:   null: Datasets' numpy format fails on a batch in which some lists are null).
#: - ``lsf_kind``: ``"measured"`` from the spectrum's own files, ``"nominal"`` from a published resolving power of the
#:   instrument, which an individual spectrum may miss by some 10 %; null where nothing is known.
RESOLUTION = {"lsf_sigma": List(Value("float32")), "lsf_kind": Value("string")}
LSF_KINDS = ("measured", "nominal")

#: What the file, or the survey's catalogue, says of the object. NaN (or null for strings) where unknown, and where the
#: survey's own flags call it unreliable, unless such labels were asked for; and for what cannot be: `plain.POSSIBLE`.
#:
#: - ``class``: one of `CLASSES`; in one's own rows another too.
#: - ``redshift``: of the object, dimensionless (for stars: v/c where the pipeline gives it).
#: - ``radial_velocity``: km/s, barycentric or heliocentric, of a star.
#: - ``teff`` in K, ``logg`` in dex of cm/s2, ``fe_h`` in dex: calibrated values only.
#: - ``label_warnings``: the names of the flags that stand on the labels, comma-separated, whether or not the labels
#: were blanked for them; ``"not in catalogue"`` where there is a catalogue without the object; ``"redshift of another
#: class"`` where a catalogue's class has no redshift and the file's is of another; null where all is well.
#: - ``snr``: median flux * sqrt(ivar) over usable pixels, computed by the builder for every survey alike.
LABELS = {
    "class": Value("string"),
    "redshift": Value("float64"),
    "radial_velocity": Value("float64"),
    "teff": Value("float32"),
    "logg": Value("float32"),
    "fe_h": Value("float32"),
    "ra": Value("float64"),
    "dec": Value("float64"),
    "label_warnings": Value("string"),
    "snr": Value("float32"),
}

#: Units of labels as FITS writes them, which knows no dex.
UNITS = {"radial_velocity": "km/s", "teff": "K", "ra": "deg", "dec": "deg"}

#: Where the row comes from. ``object_id`` is the survey's own identifier as text (64-bit integers stay exact);
#: ``source`` is the file's name with the row or group inside it where a file holds several; a table's name, or DESI's,
#: comes after the folders that tell it from others of that name among the files that are read together.
PROVENANCE = {
    "object_id": Value("string"),
    "survey": Value("string"),
    "frame": Value("string"),
    "source": Value("string"),
}

FEATURES = Features({**PROVENANCE, **SPECTRUM, **RESOLUTION, **LABELS})
