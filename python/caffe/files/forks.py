"""Layer types and fields of other Caffes: whose they are, and what to do without them.

Names are those of the forks' own caffe.proto, layer sources and prototxts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# As many forks as a message names.
_MOST_FORKS = 3


@dataclass(frozen=True)
class Fork:
    """A Caffe with layers of its own.

    Attributes
    ----------
    name : str
        What it is known for, and where it is.
    types : str
        Its layer types, blanks between them.
    fields : dict of str to str
        By message, its fields that BVLC Caffe's message lacks; blanks between them.
    policies : str
        Its policies of the learning rate.
    """

    name: str
    types: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    policies: str = ""


_DETECTION = (
    "annotated_data_param detection_evaluate_param detection_output_param multibox_loss_param "
    "norm_param permute_param prior_box_param video_data_param"
)

FORKS = (
    Fork(
        "SegNet and ENet (alexgkendall/caffe-segnet, TimoSaemann/caffe-enet)",
        "BN DenseImageData Upsample",
        {
            "LayerParameter": "bn_param dense_image_data_param upsample_param",
            "LossParameter": "weight_by_label_freqs class_weighting",
            "DropoutParameter": "sample_weights_test",
            "ImageDataParameter": "label_divide_factor",
        },
    ),
    Fork(
        "DeepLab v1",
        "",
        {"ConvolutionParameter": "hole hole_h hole_w"},
    ),
    Fork(
        "DeepLab v2 and PSPNet (hszhao/PSPNet)",
        "AdaptiveBiasChannel BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly "
        "ImageSegData Interp MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel",
        {
            "LayerParameter": "adaptive_bias_channel_param bias_channel_param dense_crf_param "
            "domain_transform_param interp_param mat_read_param mat_write_param "
            "seg_accuracy_param unique_label_param",
            "TransformationParameter": "scale_factors crop_width crop_height",
            "BatchNormParameter": "update_global_stats",
            "ImageDataParameter": "ignore_label label_type",
        },
    ),
    Fork("PSPNet and ICNet (hszhao/PSPNet)", "BN", {"LayerParameter": "bn_param"}),
    Fork(
        "SSD (weiliu89/caffe, branch ssd)",
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox "
        "SmoothL1Loss VideoData",
        {
            "LayerParameter": _DETECTION,
            "SolverParameter": "eval_type ap_version show_per_class_result plateau_winsize",
            "TransformationParameter": "crop_h crop_w resize_param noise_param distort_param "
            "expand_param emit_constraint",
        },
        "plateau",
    ),
    Fork(
        "CRF-RNN (torrvision/caffe)",
        "MultiStageMeanfield MULTI_STAGE_MEANFIELD",
        {"LayerParameter": "multi_stage_meanfield_param"},
    ),
    Fork(
        "Faster R-CNN (rbgirshick/caffe-fast-rcnn, branch faster-rcnn)",
        "ROIPooling SmoothL1Loss",
        {
            "LayerParameter": "roi_pooling_param smooth_l1_loss_param",
            "DropoutParameter": "scale_train",
        },
    ),
    Fork(
        "R-FCN (daijifeng001/caffe-rfcn)",
        "BoxAnnotatorOHEM PSROIPooling",
        {
            "LayerParameter": "box_annotator_ohem_param psroi_pooling_param",
            "LossParameter": "pre_fixed_normalizer",
        },
    ),
    Fork(
        "YOLO 9000 (choasup/caffe-yolo9000)",
        "BoxData EvalDetection RegionLoss Reorg",
        {
            "LayerParameter": "eval_detection_param region_loss_param reorg_param",
            "SolverParameter": "stagelr stageiter",
        },
        "multifixed",
    ),
    Fork(
        "FlowNet (lmb-freiburg/flownet2)",
        "Accum BlackAugmentation ChannelNorm Correlation Correlation1D CustomData "
        "DataAugmentation DisparityData Downsample FLOWriter FloatReader FloatWriter "
        "FlowAugmentation FlowWarp GenerateAugmentationParameters ImgReader ImgWriter L1Loss "
        "LpqLoss Mean NegReLU PFMWriter Resample",
        {
            "LayerParameter": "coeff_schedule_param augmentation_param correlation_param "
            "l1_loss_param writer_param reader_param mean_param resample_param downsample_param "
            "lpq_loss_param flow_warp_param accum_param black_augmentation_param "
            "reshape_every_iter",
            "FillerParameter": "diag_val",
            "DataParameter": "disk_reader_threads huge_video_dataset limit_samples "
            "preselection_file preselection_label range_start range_end rand_permute "
            "rand_permute_order rand_permute_seed slice_point encoding verbose subtract "
            "permute_every_iter block_size",
        },
    ),
    Fork(
        "OpenPose's training (CMU-Perceptual-Computing-Lab/openpose_caffe_train, caffe_train)",
        "CPMData OPData OPVideo",
        {
            "LayerParameter": "cpm_transform_param op_transform_param",
            "ConvolutionParameter": "binary",
        },
    ),
    Fork(
        "MobileNet (farmingyard/caffe-mobilenet, yonghenglh6/DepthwiseConvolution)",
        "ConvolutionDepthwise DepthwiseConvolution",
    ),
    Fork(
        "ShuffleNet (farmingyard/ShuffleNet)",
        "ShuffleChannel",
        {"LayerParameter": "shuffle_channel_param"},
    ),
    Fork("Caffes for MobileNet", "ReLU6"),
    Fork("SENet (hujie-frank/SENet)", "Axpy"),
    Fork("Caffes for Mask R-CNN", "ROIAlign"),
    Fork("Caffes with spatial transformers", "SpatialTransformer", {"LayerParameter": "st_param"}),
    Fork(
        "face recognition (ydwen/caffe-face)",
        "CenterLoss",
        {"LayerParameter": "center_loss_param"},
    ),
    Fork(
        "SphereFace (wy1iu/sphereface)",
        "MarginInnerProduct",
        {"LayerParameter": "margin_inner_product_param"},
    ),
    Fork("junhyukoh/caffe-lstm", "Lstm", {"LayerParameter": "lstm_param"}),
    Fork(
        "temporal segment networks (yjxiong/caffe)",
        "BatchReduction Gather Scatter SegData SyncBN",
        {
            "LayerParameter": "batch_reduction_param seg_data_param",
            "NetParameter": "mem_param",
            "SolverParameter": "group_id richness",
            "ConvolutionParameter": "dilation_h dilation_w",
        },
    ),
    Fork(
        "NVIDIA's Caffe (NVIDIA/caffe)",
        "DetectNetTransformation TRT",
        {
            "NetParameter": "default_forward_type default_backward_type default_forward_math "
            "default_backward_math global_grad_scale global_grad_scale_adaptive "
            "default_conv_algos_override reduce_buckets default_cudnn_math_override "
            "eltwise_mem_sharing",
            "SolverParameter": "rampup_interval rampup_lr min_lr momentum_policy max_momentum "
            "momentum_power larc larc_policy larc_eta larc_turbo weight_decay_policy "
            "weight_decay_power max_weight_decay solver_data_type store_blobs_in_old_format "
            "test_and_snapshot_last_epochs",
            "LayerParameter": "forward_type backward_type forward_math backward_math debug "
            "cudnn_math_override trt_param detectnet_groundtruth_param "
            "detectnet_augmentation_param",
            "TransformationParameter": "img_rand_resize_lower img_rand_resize_upper "
            "rand_resize_ratio_lower rand_resize_ratio_upper vertical_stretch_lower "
            "vertical_stretch_upper horizontal_stretch_lower horizontal_stretch_upper "
            "interpolation_algo_down interpolation_algo_up allow_upscale forward_packing "
            "use_gpu_transform random_seed display num_labels",
            "BatchNormParameter": "scale_filler bias_filler scale_bias engine",
            "ConvolutionParameter": "cudnn_convolution_algo_seeker conv_algos_override",
            "DataParameter": "threads parser_threads cache shuffle precache",
            "DropoutParameter": "engine random_seed",
            "ImageDataParameter": "short_side threads cache precache dataset_share_per_node",
            "LossParameter": "label_smoothing",
            "PoolingParameter": "torch_pooling",
        },
    ),
    Fork(
        "Intel's Caffe (intel/caffe)",
        "MKLBatchNorm MnActivation SmoothL1LossOHEM SoftmaxWithLossOHEM SpatialDropout",
        {
            "NetParameter": "compile_net_state engine bn_stats_batch_size multinode",
            "SolverParameter": "disabled_update engine warmup_iter warmup_start_lr "
            "local_lr_auto local_gw_ratio test_offset",
            "LayerParameter": "split_param spatial_dropout_param engine multinode "
            "mn_activation_param mn_grad_compress_param quantization_param",
            "TransformationParameter": "random_resize_param random_aspect_ratio_param flow "
            "bgr2rgb pad",
            "LossParameter": "label_smoothing",
            "ConcatParameter": "per_fla_fuse engine",
            "BatchNormParameter": "engine use_weight_bias bias_term filler bias_filler "
            "stats_batch_size relu",
            "ConvolutionParameter": "relu negative_slope conv_algorithm coeff fusion_type",
            "EltwiseParameter": "engine",
            "InnerProductParameter": "engine relu negative_slope",
            "PoolingParameter": "pad_3d kernel_size_3d stride_3d avg_include_pad axis",
            "ReLUParameter": "fuse",
            "ReshapeParameter": "pixelshuffler",
        },
    ),
)

_NO_LAYER = "write it as a Python layer, or use that Caffe"
_NOT_NEEDED = "take it out: it changes speed or memory only, not what is computed"

# What to do without a type: the layers of BVLC Caffe that do the same, where there are any.
_INSTEAD_OF_TYPE = {
    "BN": "a BatchNorm layer and a Scale layer with bias_term: true after it do the same, with the "
    "weights converted (bn_mode: INFERENCE is a Scale layer alone)",
    "SyncBN": "a BatchNorm layer and a Scale layer with bias_term: true after it do the same on "
    "one GPU, with the weights converted",
    "Upsample": "it puts values back to where a MAX Pooling layer took them; " + _NO_LAYER,
    "DenseImageData": "read pictures and labels by an HDF5Data layer or a Python layer",
    "ImageSegData": "read pictures and labels by an HDF5Data layer or a Python layer",
    "Interp": "where it enlarges by a whole number, a Deconvolution layer with weight_filler "
    '{ type: "bilinear" } and lr_mult: 0 comes near; else ' + _NO_LAYER,
    "ConvolutionDepthwise": 'write type: "Convolution" with group: the number of input channels; '
    "the weights are the same",
    "DepthwiseConvolution": 'write type: "Convolution", with group: the number of input channels; '
    "the weights are the same",
    "ReLU6": 'write type: "Clip" and clip_param { min: 0 max: 6 }',
    "Axpy": "Flatten the first bottom, multiply by a Scale layer of two bottoms with axis: 0, add "
    "by an Eltwise layer",
    "SegAccuracy": "take it out, or use an Accuracy layer with ignore_label",
    "Lstm": 'write type: "LSTM" and recurrent_param: its weights are laid out otherwise',
    "SpatialDropout": "a Dropout layer drops single values, not whole maps; " + _NO_LAYER,
}
# The same of fields.
_INSTEAD_OF_FIELD = {
    **dict.fromkeys(("hole", "hole_h", "hole_w"), "write dilation: with the same number"),
    **dict.fromkeys(("dilation_h", "dilation_w"), "write dilation twice, height first"),
    **dict.fromkeys(
        ("forward_type", "backward_type", "forward_math", "backward_math", "cudnn_math_override"),
        _NOT_NEEDED,
    ),
    **dict.fromkeys(
        (
            *("default_forward_type", "default_backward_type", "default_forward_math"),
            *("default_backward_math", "default_conv_algos_override", "reduce_buckets"),
            *("default_cudnn_math_override", "eltwise_mem_sharing", "conv_algorithm"),
            *("cudnn_convolution_algo_seeker", "conv_algos_override", "engine", "mem_param"),
            *("threads", "parser_threads", "cache", "precache", "disk_reader_threads"),
        ),
        _NOT_NEEDED,
    ),
    "scale_bias": "add a Scale layer with bias_term: true after the BatchNorm layer",
    "weight_by_label_freqs": "weight classes by an InfogainLoss layer, or pixels by a Python layer",
    "class_weighting": "weight classes by an InfogainLoss layer, or pixels by a Python layer",
    "relu": "add a ReLU layer after it",
}


def about_type(kind: str) -> str:
    """Return whose layer type it is and what to do without it; nothing of an unknown one."""
    forks = _with_type(kind)
    if not forks:
        return ""
    return f"belongs to {_told(forks)}, not to BVLC Caffe: {_INSTEAD_OF_TYPE.get(kind, _NO_LAYER)}"


def about_field(message: str, name: str, kind: str) -> str:
    """Return whose field it is and what to do; nothing of an unknown one.

    The message, such as LayerParameter, lacks it; `kind` is the type of the layer around it, or "".
    """
    # Old blocks, `layers`, have the layers' fields as well.
    among = message.removeprefix("V1")
    forks = [fork.name for fork in FORKS if name in fork.fields.get(among, "").split()]
    if not forks:
        return ""
    instead = _INSTEAD_OF_FIELD.get(name, "take it out, or use that Caffe")
    if both := [fork for fork in _with_type(kind) if fork in forks]:
        forks, instead = both, _INSTEAD_OF_TYPE.get(kind, _NO_LAYER)
    as_well = ", as does the layer's type," if both else ","
    return f"belongs to {_told(forks)}{as_well} not to BVLC Caffe: {instead}"


def about_policy(policy: str) -> str:
    """Return whose learning-rate policy it is; nothing of an unknown one."""
    forks = [fork.name for fork in FORKS if policy in fork.policies.split()]
    return f"belongs to {_told(forks)}, not to BVLC Caffe" if forks else ""


def _with_type(kind: str) -> list[str]:
    return [fork.name for fork in FORKS if kind in fork.types.split()]


def _told(names: list[str]) -> str:
    more = len(names) - _MOST_FORKS
    return " and ".join(names[:_MOST_FORKS]) + (f" and {more} more" if more > 0 else "")
