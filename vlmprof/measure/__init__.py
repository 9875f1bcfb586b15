"""Measurement of callables: clocks, memory and statistics. Independent of models."""
