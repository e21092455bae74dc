"""Stacks as files hold them, one module a format, each opened as a `Volume`."""
