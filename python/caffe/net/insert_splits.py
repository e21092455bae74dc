"""From the text of a net to the layers it is made of: filter by state, insert splits."""

from __future__ import annotations

import difflib

from caffe.errors import CaffeError
from caffe.net import net_log
from caffe.proto import caffe_pb2

# As many blobs as an error lists.
_MOST_NAMES = 50


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
        net_log.ruled_out(reason, layer)
    return not reason


def filter_net(param: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """Return a copy of the net with the layers that its state admits.

    Parameters
    ----------
    param : caffe_pb2.NetParameter
        In the current format; `param.state` has phase, level and stages.

    Raises
    ------
    CaffeError
        If a layer has both include and exclude rules.

    Notes
    -----
    A layer stays if one of its include rules holds, or none of its exclude rules.
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


def _left_out(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> str:
    """Return when a layer that makes a blob is in the net."""
    kind, rules = ("only in", layer.include) if layer.include else ("not in", layer.exclude)
    told = " or ".join(dict.fromkeys(map(_told_rule, rules)))
    word = "include" if layer.include else "exclude"
    return (
        f"layer '{layer.name}' ({layer.type}) makes it, which is {kind} the net in {told} "
        f"({word}), and this is {_told_state(state)}"
    )


def _why_missing(
    blob: str, index: int, param: caffe_pb2.NetParameter, whole: caffe_pb2.NetParameter, made: set
) -> str:
    """Return why no layer before the one at `index` makes a blob, and what to do."""
    there = {layer.name for layer in param.layer}
    for layer in whole.layer:
        if blob in layer.top and layer.name not in there:
            return f": {_left_out(layer, param.state)}"
    for layer in param.layer[index:]:
        if blob in layer.top and blob not in layer.bottom:
            return (
                f": layer '{layer.name}' ({layer.type}) makes it, but stands further down: "
                "move it up"
            )
    near = difflib.get_close_matches(blob, made, n=3)
    hint = f"did you mean {' or '.join(near)}? B" if near else "b"
    told = f"; {hint}lobs made so far: {_listed(sorted(made))}"
    kind = param.layer[index].type
    if not near and (kind.endswith("Loss") or kind == "Accuracy"):
        told += "; in a net without labels leave the layer out"
    return told


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return (", ".join(names[:_MOST_NAMES]) or "none") + (f" and {more} more" if more > 0 else "")


def insert_splits(
    param: caffe_pb2.NetParameter, whole: caffe_pb2.NetParameter | None = None
) -> caffe_pb2.NetParameter:
    """Return a copy of the net in which no blob has more than one reader.

    Parameters
    ----------
    param : caffe_pb2.NetParameter
        As `filter_net` returns it.
    whole : caffe_pb2.NetParameter, optional
        The net before: errors name the layers that were left out.

    Raises
    ------
    CaffeError
        If a layer reads a blob that no earlier layer makes.

    Notes
    -----
    Blob B of layer L, its top number i, read more than once (a loss weight counts as a reader),
    goes through a Split layer `B_L_i_split` with tops `B_L_i_split_0`, `B_L_i_split_1`, ...
    """
    # The maker of a blob is the last layer before its reader that has it as a top, in place or not.
    maker: dict[str, tuple[int, int]] = {}
    source: dict[tuple[int, int], tuple[int, int]] = {}
    readers: dict[tuple[int, int], int] = {}
    weight_of: dict[tuple[int, int], float] = {}
    for index, layer in enumerate(param.layer):
        for place, blob in enumerate(layer.bottom):
            if blob not in maker:
                why = _why_missing(blob, index, param, whole or param, set(maker))
                raise CaffeError(
                    f"layer '{layer.name}' ({layer.type}) reads blob '{blob}' (bottom {place}), "
                    f"which no layer before it makes{why}",
                    layer.name,
                )
            source[index, place] = maker[blob]
            readers[maker[blob]] = readers.get(maker[blob], 0) + 1
        for place, blob in enumerate(layer.top):
            maker[blob] = (index, place)
        for place, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                weight_of[index, place] = weight
                readers[index, place] = readers.get((index, place), 0) + 1

    result = caffe_pb2.NetParameter()
    result.CopyFrom(param)
    del result.layer[:]
    next_branch: dict[tuple[int, int], int] = {}
    for index, layer in enumerate(param.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for place in range(len(copy.bottom)):
            top = source[index, place]
            if readers[top] > 1:
                branch = next_branch.get(top, 0)
                next_branch[top] = branch + 1
                name = _split_name(param, top)
                copy.bottom[place] = f"{name}_{branch}"
        for place, blob in enumerate(layer.top):
            top = (index, place)
            count = readers.get(top, 0)
            if count > 1:
                name = _split_name(param, top)
                split = result.layer.add(name=name, type="Split", bottom=[blob])
                split.top.extend(f"{name}_{branch}" for branch in range(count))
                if top in weight_of:
                    # The loss moves to the first branch; the layer itself no longer has it.
                    del copy.loss_weight[:]
                    split.loss_weight.extend([weight_of[top]] + [0.0] * (count - 1))
                    next_branch[top] = 1
    return result


def _split_name(param: caffe_pb2.NetParameter, top: tuple[int, int]) -> str:
    layer = param.layer[top[0]]
    return f"{layer.top[top[1]]}_{layer.name}_{top[1]}_split"
