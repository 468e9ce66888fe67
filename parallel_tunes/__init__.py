"""parallel_tunes: a folder of music goes in; a trained model and an honest report come out."""

__version__ = "0.1.0"
