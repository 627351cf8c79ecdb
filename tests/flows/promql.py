"""What queries of Prometheus ask of the metrics that there are: a reader of PromQL that knows which labels a result has."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import promql_parser as promql
from prometheus_client.samples import Sample

OF_THE_SCRAPE = {"job": {"twinspan"}, "instance": {"127.0.0.1:8080"}}
"""The labels that Prometheus adds to whatever it reads."""

Series = Mapping[str, Mapping[str, set[str]]]
"""The values of each label of each sample, by the sample's name."""


class QueryError(Exception):
    """A query asks for what there is not."""


def series_of(samples: Sequence[Sample]) -> Series:
    """Returns what queries may ask for, given what one scrape gave."""
    found: dict[str, dict[str, set[str]]] = {}
    for sample in samples:
        labels = found.setdefault(sample.name, {name: set(values) for name, values in OF_THE_SCRAPE.items()})
        for name, value in sample.labels.items():
            labels.setdefault(name, set()).add(value)
    return found


def checked(query: str, series: Series) -> set[str]:
    """Returns the labels of a query's result.

    Raises:
        QueryError: A metric, a label or a label's value that the query names is not there, or what it puts together does not match.
        ValueError: It is not PromQL.
    """
    labels = _labels(promql.parse(query), series)
    if labels is None:
        raise QueryError(f"{query} is a number.")
    return labels


def _labels(expr: Any, series: Series) -> set[str] | None:
    """Returns the labels of an expression's result; None if that is a number."""
    match expr:
        case promql.NumberLiteral():
            return None
        case promql.VectorSelector():
            return _selected(expr, series)
        case promql.MatrixSelector():
            return _selected(expr.vector_selector, series)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(expr.expr, series)
        case promql.AggregateExpr():
            return _aggregated(expr, series)
        case promql.Call():
            return _called(expr, series)
        case promql.BinaryExpr():
            return _joined(expr, series)
    raise QueryError(f"{expr} is nothing that this reader knows.")


def _selected(selector: promql.VectorSelector, series: Series) -> set[str]:
    labels = series.get(selector.name or "")
    if labels is None:
        raise QueryError(f"There is no metric {selector.name}.")
    for matcher in selector.matchers.matchers:
        values = labels.get(matcher.name)
        if values is None:
            raise QueryError(f"{selector.name} has no label {matcher.name}.")
        exact = matcher.op == promql.MatchOp.Equal or matcher.op == promql.MatchOp.NotEqual  # noqa: PLR1714 (it has no hash)
        pattern = re.escape(matcher.value) if exact else matcher.value
        if "$" not in matcher.value and not any(re.fullmatch(pattern, value) for value in values):
            raise QueryError(f"{selector.name} never has {matcher}: its values are {sorted(values)}.")
    return set(labels)


def _aggregated(expr: promql.AggregateExpr, series: Series) -> set[str]:
    inner = _labels(expr.expr, series) or set()
    if expr.modifier is None:
        return set()
    named = set(expr.modifier.labels)
    if not named <= inner:
        raise QueryError(f"{expr} groups by {named - inner}, which is not there.")
    return named if expr.modifier.type == promql.AggModifierType.By else inner - named


def _called(expr: Any, series: Series) -> set[str]:
    found = [labels for argument in expr.args if (labels := _labels(argument, series)) is not None]
    match expr.func.name:
        case "vector" | "absent":
            return set()
        case "histogram_quantile":
            if "le" not in found[0]:
                raise QueryError(f"{expr} has lost its buckets.")
            return found[0] - {"le"}
    return found[0]


def _joined(expr: promql.BinaryExpr, series: Series) -> set[str] | None:
    left, right = _labels(expr.lhs, series), _labels(expr.rhs, series)
    if left is None or right is None:
        return right if left is None else left
    matching = expr.modifier.matching if expr.modifier is not None else None
    if matching is not None:
        named = set(matching.labels)
        if not named <= left & right:
            raise QueryError(f"{expr} matches on {named - (left & right)}, which is not on both sides.")
    elif left != right:
        raise QueryError(f"{expr} has {left} on one side and {right} on the other.")
    return left
