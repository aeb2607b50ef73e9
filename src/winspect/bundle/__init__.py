"""Edge bundles: a folder that scores pictures with NumPy, Pillow and one engine, without torch.

``export`` writes one (with torch), ``load_bundle`` reads it (without). Contents::

    bundle.json          what it is, what decides its scores, its classes, and the SHA-256 of every file
    preprocessing.json   size, mean, deviation and interpolation of tiles; how pictures are cut into tiles
    graphs/              tokens (pixels to tokens) and tower (tokens to embeddings), as OpenVINO IR or ONNX
    classes/NN-name/     text.npy, references.npz and calibration.json of a class

Windows, scores and decisions are not in the graphs: they are in :mod:`winspect.methods` and
:mod:`winspect.calibration`.
"""
