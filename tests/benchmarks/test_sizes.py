"""The table of sizes: a figure that was not measured is not made up."""

from benchmarks.sizes import table


FIGURES = {
    "encoder_parameters": 1.2e6, "decoder_parameters": 3.4e6, "embedding_flops": 5.6e9, "training_flops": 7.8e9,
    "weight_bytes": 18.4e6, "embedding_bytes": None, "spectra_per_second": None,
}  # fmt: skip


def test_what_was_not_timed_is_not_measured():
    lines = table({"tiny": FIGURES, "small": {**FIGURES, "spectra_per_second": 9.0}}, 16, "core-second").splitlines()
    assert "embedding 16 spectra, MB" in lines[0]
    assert lines[2] == "| tiny | 1.2 + 3.4 | 5.60 | 7.80 | 18 | not measured | not measured |"
    assert lines[3].endswith("| not measured | 9.0 |")
