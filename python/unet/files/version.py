"""The version of this package, which what it writes is marked with."""

VERSION = "0.1.0"
