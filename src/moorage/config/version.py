"""The version of Moorage, read by the build and by `moorage version`."""

VERSION = "0.1.0"
