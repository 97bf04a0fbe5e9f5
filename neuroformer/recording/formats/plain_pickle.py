"""What a pickle holds, if that is texts, numbers, lists, dictionaries and NumPy arrays; nothing of it is run.

pandas keeps the names of columns so, pynapple the columns of units, and hdmf-zarr texts and references. A pickle names functions, which Python would call:
here the few that arrays are made of have stand-ins, which only keep what they were given, and every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np

MOST_BYTES = 64 << 20
_CODE = re.compile(r"b1|[iuf][1248]|[US]\d{1,6}|O8?")


class _Dtype:
    def __init__(self, code: str, *_: Any):
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays of {code!r} are not read")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1]) if state[1] in ("<", ">", "=") else "="

    def numpy(self) -> np.dtype:
        return np.dtype(self.code if self.code[0] == "O" else self.order + self.code)


class _Array:
    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def numpy(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        dtype = dtype.numpy()
        if dtype.hasobject:
            out = np.empty(len(raw), object)
            for i, v in enumerate(raw):
                out[i] = _plain(v)
            return out.reshape(shape)
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _from_buffer(raw: Any, dtype: _Dtype, shape: Any, order: str = "C") -> _Array:
    out = _Array()
    out.state = (1, shape, dtype, order == "F", raw)
    return out


def _scalar(dtype: _Dtype, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.numpy())[0]


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin1")


_KNOWN = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # how the oldest pickles write empty bytes
    ("hdmf_zarr.utils", "ZarrReference"): dict,  # which it is, with names for its entries
}


# the one in Python: that in C takes memory on the word of a damaged file
class _Unpickler(pickle._Unpickler):  # type: ignore[attr-defined]
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")
        return _KNOWN[module, name]

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"it names extension {code}, which is not run")


def loads(data: bytes) -> Any:
    """The value of a pickle.

    Raises
    ------
    ValueError
        It is damaged, larger than 64 MB, or holds something else than plain values.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"a pickle of {len(data):,} bytes; expected at most {MOST_BYTES:,}")
    try:
        return _plain(_Unpickler(io.BytesIO(data)).load())
    except Exception as e:  # damaged ones raise of every kind
        raise ValueError(f"not a pickle of plain values: {e}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    if value is None or isinstance(value, (str, bytes, bool, int, float, np.generic)):
        return value
    raise ValueError(f"a {type(value).__name__} is no plain value")
