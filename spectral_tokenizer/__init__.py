"""One encoder for the spectra of many surveys on their native grids, and one decoder for any grid.

Importing this package registers its classes with Transformers' Auto classes. Survey readers are in
`spectral_tokenizer.data`, which is never imported from here: a model needs no astropy.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .configuration_spectral_tokenizer import SpectralConfig
from .heads_spectral_tokenizer import SpectralForSequenceClassification
from .modeling_spectral_tokenizer import SpectralForPreTraining, SpectralModel, SpectralPreTrainedModel
from .processing_spectral_tokenizer import SpectralProcessor


__version__ = "0.1.0"

AutoConfig.register("spectral_tokenizer", SpectralConfig)
AutoModel.register(SpectralConfig, SpectralModel)
AutoModelForPreTraining.register(SpectralConfig, SpectralForPreTraining)
AutoModelForSequenceClassification.register(SpectralConfig, SpectralForSequenceClassification)
AutoProcessor.register(SpectralConfig, SpectralProcessor)
AutoFeatureExtractor.register(SpectralConfig, SpectralProcessor)

# A saved model or processor takes its code along, so that it loads where this package is not installed.
SpectralConfig.register_for_auto_class()
SpectralModel.register_for_auto_class("AutoModel")
SpectralForPreTraining.register_for_auto_class("AutoModelForPreTraining")
SpectralForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
SpectralProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
    "SpectralConfig",
    "SpectralForPreTraining",
    "SpectralForSequenceClassification",
    "SpectralModel",
    "SpectralPreTrainedModel",
    "SpectralProcessor",
]
