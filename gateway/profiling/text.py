"""Writes profiles for people: each stack with its values, the greatest first. Pure."""

from gateway.profiling.profile import Profile


def render(profile: Profile) -> str:
    """Returns a profile as text."""
    kinds = "/".join(f"{value_type.type}({value_type.unit})" for value_type in profile.value_types)
    totals = [sum(values) for values in zip(*profile.samples.values(), strict=True)] or [0] * len(profile.value_types)
    lines = [f"{len(profile.samples)} stacks, {kinds}: {_values(totals)}, in {profile.duration_ns / 1e9:.3f} s"]
    lines += [f"# {comment}" for comment in profile.comments]
    for (stack, labels), values in sorted(profile.samples.items(), key=lambda sample: sample[1][::-1], reverse=True):
        said = ", ".join(f"{name}: {value}" for name, value in labels)
        lines += ["", f"{_values(values)}{f' [{said}]' if said else ''}"]
        lines += [f"#\t{frame.name}\t{frame.filename}:{frame.line}" for frame in stack]
    return "\n".join(lines) + "\n"


def _values(values: list[int]) -> str:
    return "/".join(map(str, values))
