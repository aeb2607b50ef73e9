"""Mutual scoring of an unlabelled batch (MuSc).

``method.py`` has the settings, ``batch.py`` a batch of pictures, the other files its steps.
"""
