#!/usr/bin/env python3
"""Recounts usage events in the dullest possible way, in another language than the product.

Reads one JSON usage event per line (CloudEvents with subject, source, id, type, time, data), keeps the first of each
identity, and prints `customer,meter,hourStartUtc,quantity` sorted by bytes: requests, and the sums of two properties.
Everything is an integer or a Fraction; no float is ever made.
"""
import json
import sys
from fractions import Fraction

METERS = (("llm_requests", None), ("input_tokens", "inputTokens"), ("output_tokens", "outputTokens"))


def main() -> None:
    seen = set()
    totals = {}
    for line in sys.stdin:
        event = json.loads(line, parse_float=Fraction)
        identity = (event["subject"], event["source"], event["id"])
        if identity in seen:
            continue
        seen.add(identity)
        if event["type"] != "llm.request":
            continue
        hour = event["time"][:13] + ":00:00Z"
        for meter, prop in METERS:
            quantity = 1 if prop is None else Fraction(event["data"][prop])
            key = (event["subject"], meter, hour)
            totals[key] = totals.get(key, 0) + quantity
    for (customer, meter, hour), quantity in sorted(totals.items()):
        print(f"{customer},{meter},{hour},{quantity}")


main()
