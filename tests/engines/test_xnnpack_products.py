"""Products on XNNPACK that a device's rates are measured with."""

import pytest
import torch

from atom_repro.engines import xnnpack_products
from atom_repro.engines.xnnpack_products import SquareProducts
from atom_repro.quant import none

pytestmark = pytest.mark.slow
pytest.importorskip("executorch")


def test_a_product_has_the_size_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(xnnpack_products, "_COMMON_SIZES", (16, 32))
    product = SquareProducts(none.build())
    for size in (16, 32, 16):
        ones = torch.ones(size, size, dtype=torch.int8)  # of any type: only the size counts
        (result,) = product(ones, ones.t())
        assert result.shape == (size, size)
        assert result.std() > 0  # of weights, and not of the matrices that were given
