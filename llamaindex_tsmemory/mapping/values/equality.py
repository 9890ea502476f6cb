"""Equality in type and in all parts."""

from __future__ import annotations

import decimal
import math
from typing import Any

from pydantic import BaseModel

__all__ = ["same"]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal in type and in all their parts; a NaN equals itself."""
    kind = type(a)
    if kind is not type(b):
        return False
    if a is b:
        return True
    if kind is dict:
        return len(a) == len(b) and all(k in b and same(v, b[k]) for k, v in a.items())
    if kind is list or kind is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is float:
        return bool(a == b) or (math.isnan(a) and math.isnan(b))
    if kind is decimal.Decimal:
        return str(a) == str(b)
    if isinstance(a, BaseModel):
        return (
            same(a.__dict__, b.__dict__)
            and same(a.__pydantic_extra__ or {}, b.__pydantic_extra__ or {})
            and same(a.__pydantic_private__ or {}, b.__pydantic_private__ or {})
        )
    return bool(a == b)
