"""The `unet` command and its programs: flags, one call, print."""
