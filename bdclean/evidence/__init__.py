"""Evidence for or against a backdoor that a reader can see: attribution, features, channels, weights and spectra."""

from bdclean.evidence.attribution import Attribution, attribute
from bdclean.evidence.embedding import Embedding, Kind, embed
from bdclean.evidence.gathered import Evidence, Looks
from bdclean.evidence.layers import LayerChange, changed_layers
from bdclean.evidence.spectrum import Spectrum, spectrum

__all__ = [
    "Attribution",
    "Embedding",
    "Evidence",
    "Kind",
    "LayerChange",
    "Looks",
    "Spectrum",
    "attribute",
    "changed_layers",
    "embed",
    "spectrum",
]
