r"""Caffe's messages: caffe.proto, what protoc makes of it (caffe.binpb), and their classes.

After a change to caffe.proto, in the folder `python`, with grpcio-tools installed:

    python -m grpc_tools.protoc -I. --descriptor_set_out=caffe/proto/caffe.binpb \
        caffe/proto/caffe.proto
"""
