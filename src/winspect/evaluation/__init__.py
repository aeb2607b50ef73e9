"""Evaluation on a data set: draw references, score category by category, keep figures that can be trusted.

Reading and comparing results needs no torch; scoring does.
"""
