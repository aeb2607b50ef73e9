"""How embeddings become scores; arrays only.

``method.py`` is the contract of a method, ``registry.py`` finds one by its name, ``winclip/`` has those of today.
"""
