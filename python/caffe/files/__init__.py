"""Files read and written: prototxt, caffemodel, HDF5, solver states, upgrades of older formats."""
