"""vlmprof: what a vision encoder costs inside a vision-language model."""

__version__ = "0.1.0"
