"""Figures of merit: plain functions from numbers to a number, None where a figure is undefined."""

from winspect.metrics.image import auroc

__all__ = ["auroc"]
