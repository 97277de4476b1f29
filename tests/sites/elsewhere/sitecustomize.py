"""A machine that differs from this one: on PYTHONPATH, Python loads it in every process.

ELSEWHERE_AHEAD: seconds by which its clock is ahead; less than 0 for behind.
ELSEWHERE_VERSION: of fedbbpt, as if that were installed.
"""

import datetime
import importlib.metadata
import os
import time

AHEAD = float(os.environ.get("ELSEWHERE_AHEAD", "0"))
VERSION = os.environ.get("ELSEWHERE_VERSION", "")

if AHEAD:
    real, seconds, nanoseconds = datetime.datetime, time.time, time.time_ns

    class _Any(type(real)):
        def __instancecheck__(cls, value):
            return isinstance(value, real)

    class Shifted(real, metaclass=_Any):
        """What C makes is an instance too."""

        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=AHEAD)

        @classmethod
        def utcnow(cls):
            return real.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    datetime.datetime = Shifted
    time.time = lambda: seconds() + AHEAD
    time.time_ns = lambda: nanoseconds() + int(AHEAD * 1e9)

if VERSION:
    installed = importlib.metadata.version

    def version(name):
        return VERSION if name == "fedbbpt" else installed(name)

    importlib.metadata.version = version
