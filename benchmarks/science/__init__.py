"""What is learned per FLOP: spectra with known truth, probes, peers and limits. See README.md beside this file."""
