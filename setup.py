"""Refuses to build a wheel: commands and configuration are read from a checkout."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class CheckoutNeeded(bdist_wheel):
    """A wheel would lack `conf`, `train`, `eval` and `device_bench`."""

    def run(self) -> None:
        raise SystemExit(
            "error: atom-repro runs from its checkout, which has its commands and configuration; "
            "install it with `make setup`, or `pip install -e .`"
        )


setup(cmdclass={"bdist_wheel": CheckoutNeeded})
