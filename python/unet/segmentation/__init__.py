"""A stack through a network: tiles, test-time augmentation, instances."""
