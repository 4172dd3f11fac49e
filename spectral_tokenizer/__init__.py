"""One encoder for the spectra of many surveys on their native grids, and one decoder for any grid.

Importing this package registers its classes with Transformers' Auto classes. Survey readers are in
`spectral_tokenizer.data`, which is never imported from here: a model needs no astropy.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoProcessor,
)

from .configuration_spectral_tokenizer import SpectralConfig
from .modeling_spectral_tokenizer import SpectralForPreTraining, SpectralModel, SpectralPreTrainedModel
from .processing_spectral_tokenizer import SpectralProcessor


__version__ = "0.1.0"

AutoConfig.register("spectral_tokenizer", SpectralConfig)
AutoModel.register(SpectralConfig, SpectralModel)
AutoModelForPreTraining.register(SpectralConfig, SpectralForPreTraining)
AutoProcessor.register(SpectralConfig, SpectralProcessor)
AutoFeatureExtractor.register(SpectralConfig, SpectralProcessor)

# A saved model or processor takes its code along, so that it loads where this package is not installed.
SpectralConfig.register_for_auto_class()
SpectralModel.register_for_auto_class("AutoModel")
SpectralForPreTraining.register_for_auto_class("AutoModelForPreTraining")
SpectralProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
    "SpectralConfig",
    "SpectralForPreTraining",
    "SpectralModel",
    "SpectralPreTrainedModel",
    "SpectralProcessor",
]
