"""atom-repro: Atom (arXiv 2512.17108) rebuilt, measured and audited.

Layers, each importing only those to its right:
pipelines → runtime → engines → models | quant | data | metrics | device →
records | config | datatypes. `report` reads records, datatypes and the paper's data.
"""

__version__ = "0.1.0"
