"""What a file may ask for: the limits that the readers of this room share.

Nets and weights come from anywhere. A file must not take memory or time out of proportion to what
is in it, by mistake or on purpose: what exceeds these is refused, in one sentence, before it costs
anything. A residual net of a thousand convolutions, about the largest published, takes 111,000
words and signs as a prototxt, 80,000 fields outside its packed numbers as a .caffemodel, and
11,000 layers and parameters as HDF5.
"""

# A prototxt's bytes, the longest line of it, words and signs, and messages in messages.
TEXT_BYTES = 2 * 2**20
TEXT_LINE = 2**19
TEXT_TOKENS = 200_000
TEXT_DEPTH = 100

# A binary file's fields, and the bytes of a name in it.
WIRE_FIELDS = 150_000
WIRE_NAME = 2**16

# The groups and data sets of an HDF5 file, and groups in groups.
HDF5_ENTRIES = 15_000
HDF5_DEPTH = 20
# Caffe does not compress. Who does so afterwards shrinks trained parameters by little; zeros, as in
# a new history, by 1000, but what claims that of hundreds of megabytes is a trap for memory.
HDF5_UNPACKED = 64 * 2**20
HDF5_COMPRESSION = 20

# What an error quotes of a file, in letters: of a value, and of a layer's name.
QUOTED = 200
QUOTED_NAME = 100
