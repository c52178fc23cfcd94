"""Reads metrics as Prometheus does, and says what is wrong with them.

Standard input is what an endpoint answers in the text form 0.0.4. Prometheus' own client for
Python parses it, and once more by the rules of OpenMetrics, which are stricter: the order of
buckets, the end of a histogram, the samples that belong to each type. Names are judged as
`promtool check metrics` does. Prints one JSON value: the samples by family, and the findings.
"""

import json
import re
import sys

from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly
from prometheus_client.parser import text_string_to_metric_families as plainly

# What is a multiple of a base unit, as a word of a name.
PREFIXES = "(milli|micro|nano|pico|kilo|mega|giga|tera|kibi|mebi|gibi|tebi|centi|deci|deca|hecto)"
UNITS = "(seconds?|bytes?|meters?|grams?|volts?|amperes?|joules?|hertz|celsius)"
MULTIPLE = re.compile(f"{PREFIXES}{UNITS}|minutes?|hours?|days?|weeks?|bits?|percents?|fahrenheit")
ABBREVIATED = {"s", "ms", "us", "ns", "sec", "min", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
TYPES = {"counter", "gauge", "histogram", "summary"}

findings = []


def check(is_right, name, rule):
    if not is_right:
        findings.append(f"{name}: {rule}")


class Families:
    """As much of a registry as the exposition asks for."""

    def __init__(self, families):
        self.families = families

    def collect(self):
        return self.families


def names(family):
    name = family.name
    words = name.split("_")
    check(re.fullmatch("[a-z][a-z0-9_]*", name), name, "is not in small letters, digits and _")
    check(family.documentation.strip(), name, "has no help")
    check(family.type != "unknown", name, "has no type")
    check(not TYPES & set(words), name, "has its type in its name")
    check(not ABBREVIATED & set(words), name, "abbreviates a unit")
    check(not any(map(MULTIPLE.fullmatch, words)), name, "is in no base unit")
    if family.type != "histogram":
        check(words[-1] not in {"count", "sum", "bucket"}, name, "ends as a part of a histogram")


def histogram(family):
    parts = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        part = parts.setdefault(json.dumps(labels, sort_keys=True), {"buckets": []})
        if sample.name.endswith("_bucket"):
            part["buckets"].append((float(sample.labels["le"]), sample.value))
        else:
            part[sample.name.removeprefix(family.name)] = sample.value
    for labels, part in parts.items():
        name = f"{family.name}{labels}"
        counts = [count for _, count in sorted(part["buckets"])]
        check(counts == sorted(counts), name, "has a bucket that is less than one within it")
        last = dict(part["buckets"]).get(float("inf"))
        check(last is not None and last == part.get("_count"), name, "ends in another count")
        check(part.get("_sum", -1) >= 0, name, "has no sum")


text = sys.stdin.read()
declared = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
families = list(plainly(text))
check(len(families) == len(declared), "all", "there are families without a type, or twice")
for name, kind in declared.items():
    # The parser takes this end off, so only the text itself tells.
    check((kind == "counter") == name.endswith("_total"), name, f"is a {kind} by its type only")
for family in families:
    names(family)
    check(family.samples, family.name, "has no sample")
    if family.type == "histogram":
        histogram(family)
again = list(strictly(generate_latest(Families(families)).decode()))
check(
    [(one.name, one.type, len(one.samples)) for one in again]
    == [(one.name, one.type, len(one.samples)) for one in families],
    "all",
    "the stricter rules read something else",
)

samples = {
    family.name: [[sample.labels, sample.value] for sample in family.samples]
    for family in families
}
json.dump({"samples": samples, "findings": findings}, sys.stdout)
