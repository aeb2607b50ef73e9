"""A product: all that a part number is inspected with, in a file that people read and edit.

* ``document``: the entries of the file, checked. ``sections``: those that other rooms read.
* ``named_files``: the files that it names, and their hashes.
* ``file``: reading it, and what is wrong with it. ``recording``: writing it, and its changes as new revisions.
* ``history``: who changed what, and when.
* ``packing``: a file to carry to the line, which inspects without torch.

``m6.toml`` has its history beside it, in the folder ``m6.history``.
"""
