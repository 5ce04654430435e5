"""atom-repro: Atom (arXiv 2512.17108) rebuilt, measured and audited.

Data flows video → data → models → checkpoints → engines → training | runtime → hosts →
pipelines → evaluation → records → report. Which folder may import which is in `CONTRIBUTING.md`.
"""

__version__ = "0.1.0"
