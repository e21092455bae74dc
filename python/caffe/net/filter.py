"""The layers that a net's state (phase, level, stages) admits, by include and exclude rules."""

from __future__ import annotations

from caffe.errors import CaffeError
from caffe.log import Log
from caffe.proto import caffe_pb2

_log = Log("net.cpp")


def _why_not(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule) -> str:
    """Return why a rule does not hold, in genuine Caffe's words; nothing if it does."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return f"The NetState phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        return f"The NetState level ({state.level}) is above the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return f"The NetState level ({state.level}) is above the max_level ({rule.max_level})"
    for stage in rule.stage:
        if stage not in state.stage:
            return f"The NetState did not contain stage '{stage}'"
    for stage in rule.not_stage:
        if stage in state.stage:
            return f"The NetState contained a not_stage '{stage}'"
    return ""


def _rule_holds(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule, layer: str) -> bool:
    reason = _why_not(state, rule)
    if reason:
        _log.info(f"{reason} specified by a rule in layer {layer}")
    return not reason


def filter_net(param: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """Return a copy of a net of the current format with the layers that its `state` admits.

    A layer stays if one of its include rules holds, or none of its exclude rules.

    Raises
    ------
    CaffeError
        If a layer has both include and exclude rules.
    """
    kept = caffe_pb2.NetParameter()
    kept.CopyFrom(param)
    del kept.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise CaffeError(
                f"layer '{layer.name}': give include or exclude rules, not both", layer.name
            )
        if layer.include:
            admitted = any(_rule_holds(param.state, rule, layer.name) for rule in layer.include)
        else:
            admitted = not any(_rule_holds(param.state, rule, layer.name) for rule in layer.exclude)
        if admitted:
            kept.layer.add().CopyFrom(layer)
    return kept


def _told_rule(rule: caffe_pb2.NetStateRule) -> str:
    parts = [f"phase {caffe_pb2.Phase.Name(rule.phase)}"] if rule.HasField("phase") else []
    parts += [f"level {rule.min_level} or more"] if rule.HasField("min_level") else []
    parts += [f"level {rule.max_level} or less"] if rule.HasField("max_level") else []
    parts += [f"stage '{stage}'" for stage in rule.stage]
    parts += [f"no stage '{stage}'" for stage in rule.not_stage]
    return " and ".join(parts) or "any state"


def _told_state(state: caffe_pb2.NetState) -> str:
    parts = [f"phase {caffe_pb2.Phase.Name(state.phase)}"]
    parts += [f"level {state.level}"] if state.level else []
    parts += [f"stage '{stage}'" for stage in state.stage if stage]
    return ", ".join(parts)


def told_left_out(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> str:
    """Return when a layer that makes a blob is in the net."""
    kind, rules = ("only in", layer.include) if layer.include else ("not in", layer.exclude)
    told = " or ".join(dict.fromkeys(map(_told_rule, rules)))
    word = "include" if layer.include else "exclude"
    return (
        f"layer '{layer.name}' ({layer.type}) makes it, which is {kind} the net in {told} "
        f"({word}), and this is {_told_state(state)}"
    )
