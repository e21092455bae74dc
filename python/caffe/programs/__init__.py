"""The programs beside `caffe`: draw nets, upgrade old files, read training logs."""
