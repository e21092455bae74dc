"""Caffe's messages: caffe.proto, and caffe_pb2, which protoc generates from it.

After a change to caffe.proto, in this folder:

    pip install 'grpcio-tools==1.60.*'
    python -m grpc_tools.protoc -I. --python_out=. caffe.proto

That release's output loads with protobuf 4.25 and all later ones; newer releases' output needs the
protobuf of their day.
"""
