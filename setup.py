"""The one thing that pyproject.toml cannot say: the optional extension `moorage._native.engine`.

Owns      how the extension is compiled: one source, the stable ABI of CPython 3.11, so one wheel for all later ones.
Promises  without Cython or a C compiler the installation succeeds, and `moorage version` says that it is pure.
"""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

HERE = Path("src/moorage/_native")
DIRECTIVES = {
    "language_level": 3,
    "binding": False,  # methods as C methods: measured, up to 0.15 µs a call under the stable ABI
    "embedsignature": False,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def extensions() -> list[Extension]:
    # epoll is Linux's, and the free-threaded builds have no stable ABI
    if sys.platform != "linux" or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        sys.stderr.write("moorage: Cython is missing, so the native twins are left out\n")
        return []
    engine = Extension(
        "moorage._native.engine",
        [str(HERE / "engine.pyx")],
        depends=["setup.py", *map(str, sorted(HERE.glob("*.pxi")))],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=["-O2"],
        py_limited_api=True,
    )
    made: list[Extension] = cythonize([engine], build_dir="build", compiler_directives=DIRECTIVES)
    for extension in made:
        extension.optional = True  # said here: cythonize makes new objects, and loses it (Cython 3.3.1)
    return made


setup(ext_modules=extensions(), options={"bdist_wheel": {"py_limited_api": "cp311"}})
