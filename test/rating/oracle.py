#!/usr/bin/env python3
"""Recomputes bills from docs/rating.md alone, in another language than the product and in the dullest possible way.

Reads JSON lines: `{"plan", "totals", "bill"}` or `{"need", "result"}` (prepaid credits). Up to 50 units a line is counted one unit after
the other, each at its own tier; above by the closed form. Every number is an int or a Fraction, every comparison is of the text that the
bill prints. Prints one JSON object: lines and bills compared by shape, and the first mismatches.
"""
import json
import re
import sys
from fractions import Fraction
from functools import lru_cache

UNIT_BY_UNIT_MAX = 50
PIECES_MAX = 500
SHOWN_MAX = 10
# Quantities have 9 fraction digits, prices 14 at most: every exact amount has fewer.
PLACES_MAX = 30
ZERO_DIGITS = set("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
THREE_DIGITS = set("bhd jod kwd omr tnd".split())


def digits_of(currency):
    return 0 if currency in ZERO_DIGITS else 3 if currency in THREE_DIGITS else 2


@lru_cache(maxsize=256)
def number(text):
    """Exact value of decimal text."""
    whole, _, fraction = text.partition(".")
    return Fraction(int(whole + fraction), 10 ** len(fraction))


def text_of(value):
    """Decimal text without trailing zeros."""
    if value.denominator == 1:
        return str(value.numerator)
    return fixed(value, PLACES_MAX).rstrip("0").rstrip(".")


def fixed(value, places):
    """Decimal text with exactly so many fraction digits."""
    scaled, rest = divmod(value.numerator * 10**places, value.denominator)
    assert rest == 0, value
    digits = str(abs(scaled)).rjust(places + 1, "0")
    whole, fraction = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if scaled < 0 else "") + whole + ("." + fraction if places else "")


def rounded(value, places):
    """Half away from zero."""
    magnitude = (abs(value) * 10**places * 2 + 1) // 2
    return Fraction(magnitude if value >= 0 else -magnitude, 10**places)


def pieces(units, bounds):
    """The billable quantity as spans, in order: whole units, cut at the bounds of tiers, and what is left of the last one."""
    at = Fraction(0)
    while at < units:
        end = min([at // 1 + 1, units] + [bound for bound in bounds if bound > at])
        yield at, end
        at = end


def tier_of(tiers, at):
    """Index of the tier whose span (from, upTo] holds a position."""
    for index, tier in enumerate(tiers):
        if tier["upTo"] == "inf" or at <= number(tier["upTo"]):
            return index
    raise AssertionError("no last tier")


def part(tiers, index, quantity, unit_sum):
    tier = tiers[index]
    flat = number(tier["flat"])
    return {
        "from": "0" if index == 0 else text_of(number(tiers[index - 1]["upTo"])),
        "upTo": "inf" if tier["upTo"] == "inf" else text_of(number(tier["upTo"])),
        "quantity": text_of(quantity),
        "unit": text_of(number(tier["unit"])),
        "flat": text_of(flat),
        "amount": text_of(unit_sum + flat),
    }, unit_sum + flat


def plain_part(quantity, unit, amount):
    return [
        {"from": "0", "upTo": "inf", "quantity": text_of(quantity), "unit": text_of(unit), "flat": "0", "amount": text_of(amount)}
    ], amount


def per_unit(units, price):
    unit = number(price["unit"])
    if units > UNIT_BY_UNIT_MAX:
        return plain_part(units, unit, units * unit)
    amount = Fraction(0)
    for start, end in pieces(units, []):
        amount += (end - start) * unit
    return plain_part(units, unit, amount)


def packages(units, price):
    size, each = number(price["size"]), number(price["price"])
    if units > UNIT_BY_UNIT_MAX or units > size * PIECES_MAX:
        count, rest = divmod(units, size)
        if rest and price["round"] == "up":
            count += 1
    else:
        # Packages are opened one after the other; rounded down, only full ones count.
        count, left = 0, units
        while left > 0:
            taken = min(size, left)
            left -= taken
            if taken == size or price["round"] == "up":
                count += 1
    count = Fraction(count)
    return plain_part(count, each, count * each)


def graduated(units, price, covered):
    tiers = price["tiers"]
    if units == 0:
        found = [] if covered else [part(tiers, 0, Fraction(0), Fraction(0))]
    elif units <= UNIT_BY_UNIT_MAX:
        in_tier, sums = {}, {}
        bounds = [number(tier["upTo"]) for tier in tiers if tier["upTo"] != "inf"]
        for start, end in pieces(units, bounds):
            index = tier_of(tiers, end)
            in_tier[index] = in_tier.get(index, 0) + end - start
            sums[index] = sums.get(index, 0) + (end - start) * number(tiers[index]["unit"])
        found = [part(tiers, index, in_tier[index], sums[index]) for index in sorted(in_tier)]
    else:
        found, lower = [], Fraction(0)
        for index, tier in enumerate(tiers):
            if units <= lower:
                break
            upper = units if tier["upTo"] == "inf" else min(units, number(tier["upTo"]))
            found.append(part(tiers, index, upper - lower, (upper - lower) * number(tier["unit"])))
            lower = upper if tier["upTo"] == "inf" else number(tier["upTo"])
    return [p for p, _ in found], sum((a for _, a in found), Fraction(0))


def volume(units, price, covered):
    tiers = price["tiers"]
    if units == 0 and covered:
        return [], Fraction(0)
    index = tier_of(tiers, units)
    unit = number(tiers[index]["unit"])
    if units > UNIT_BY_UNIT_MAX:
        total = units * unit
    else:
        total = sum(((end - start) * unit for start, end in pieces(units, [])), Fraction(0))
    shown, amount = part(tiers, index, units, total)
    return [shown], amount


def rate(price, units, covered):
    if price is None:
        return [], Fraction(0)
    if price["model"] == "per_unit":
        return per_unit(units, price)
    if price["model"] == "package":
        return packages(units, price)
    return (graduated if price["model"] == "graduated" else volume)(units, price, covered)


def item_line(item, total, currency):
    used = number(total["quantity"])
    included = number(item["included"] or "0")
    credits = number(total.get("credits", "0"))
    billable = max(Fraction(0), max(Fraction(0), used) - included) - credits
    tiers, exact = rate(item["price"], billable, included > 0)
    places = digits_of(currency)
    return {
        "key": item["key"],
        "kind": "usage",
        "meter": item["meter"],
        "meterVersion": item["meterVersion"],
        "quantity": text_of(used),
        "included": text_of(included),
        "credits": text_of(credits),
        "billable": text_of(billable),
        "tiers": tiers,
        "exact": text_of(exact),
        "amount": fixed(rounded(exact, places), places),
    }


def fee_line(fee, currency):
    places = digits_of(currency)
    tiers, exact = plain_part(Fraction(1), fee, fee)
    line = dict(key="fee", kind="fee", meter=None, meterVersion=None, quantity="1", included="0", credits="0", billable="1")
    return {**line, "tiers": tiers, "exact": text_of(exact), "amount": fixed(rounded(exact, places), places)}


TOKEN = re.compile(r"\d+(?:\.\d+)?|[×+−]")


def value_of(terms):
    """Value of `a × b + c − d`; words between are names."""
    total, sign, product = Fraction(0), 1, Fraction(1)
    for token in TOKEN.findall(terms):
        if token in "+−":
            total += sign * product
            sign, product = (1 if token == "+" else -1), Fraction(1)
        elif token != "×":
            product *= number(token)
    return total + sign * product


def wrong_step(line):
    """The first step that is not true, or does not lead to the amount; None when all are right."""
    last = None
    for step in line["steps"]:
        terms = step.split(": ")[-1]
        if " ≈ " in terms:
            exact, amount = terms.split(",")[0].split(" ≈ ")
            if exact != line["exact"] or amount != line["amount"]:
                return step
            last = number(amount)
        elif " = " in terms:
            left, right = terms.split(" = ")
            last = number(right)
            if value_of(left) != last:
                return step
        elif terms.endswith(" ≤ 0"):
            if value_of(terms[:-4]) > 0 or line["billable"] != "0":
                return step
    if line["tiers"] and last != number(line["amount"]):
        return "the last step is not the amount"
    return None


def shape_of(price):
    if price is None:
        return "no price"
    return price["model"] + (" " + price["round"] if price["model"] == "package" else "")


def compare_bill(record, counts):
    plan, bill = record["plan"], record["bill"]
    totals = {total["item"]: total for total in record["totals"]}
    fee = number(plan["fee"])
    shapes = ["fee"] if fee else []
    expected = [fee_line(fee, plan["currency"])] if fee else []
    for item in plan["items"]:
        shapes.append(shape_of(item["price"]))
        expected.append(item_line(item, totals.get(item["key"], {"quantity": "0"}), plan["currency"]))
    if len(bill["lines"]) != len(expected):
        return "number of lines"
    for shape, want, line in zip(shapes, expected, bill["lines"]):
        counts[shape] = counts.get(shape, 0) + 1
        got = {name: value for name, value in line.items() if name != "steps"}
        if got != want:
            return {"line": got, "expected": want}
        step = wrong_step(line)
        if step is not None:
            return {"line": line["key"], "step": step}
    places = digits_of(plan["currency"])
    total = sum((number(line["amount"]) for line in expected), Fraction(0))
    frame = {"plan": plan["plan"], "currency": plan["currency"], "total": fixed(total, places), "totalMinor": str(total * 10**places)}
    got = {name: bill[name] for name in frame}
    return None if got == frame else {"bill": got, "expected": frame}


def settle(need):
    """Settlements and rest, as docs/rating.md says it; all units are whole numbers of 10^-9."""
    units, found = int(need["need"]), {}
    if units >= 0:
        forever = float("inf")
        order = lambda g: (g["priority"], forever if g["expiresAt"] is None else g["expiresAt"], g["grantedAt"], g["id"])
        for grant in sorted(need["grants"], key=order):
            alive = grant["expiresAt"] is None or need["at"] < grant["expiresAt"]
            used = min(units, int(grant["left"])) if alive else 0
            if used:
                found[grant["id"]] = used
                units -= used
        return found, units
    # What is still used, as a pile: earlier returns took their grant's newest uses off it.
    pile = []
    for entry in need["settled"]:
        amount = int(entry["units"])
        if amount > 0:
            pile.append([entry["grant"], amount])
        for use in reversed(pile):
            if amount < 0 and use[0] == entry["grant"]:
                taken = min(use[1], -amount)
                use[1] -= taken
                amount += taken
    for grant, amount in reversed(pile):
        back = min(amount, -units)
        if back:
            found[grant] = found.get(grant, 0) - back
            units += back
    return found, units


def compare_credits(record, counts):
    counts["credits"] = counts.get("credits", 0) + 1
    settlements, rest = settle(record["need"])
    want = {"settlements": [{"grant": grant, "units": str(units)} for grant, units in settlements.items()], "rest": str(rest)}
    return None if record["result"] == want else {"result": record["result"], "expected": want}


def main():
    counts, wrong, shown, bills, unit_by_unit = {}, 0, [], 0, 0
    for line in sys.stdin:
        record = json.loads(line)
        bills += "bill" in record
        for line in record.get("bill", {"lines": []})["lines"]:
            unit_by_unit += line["kind"] == "usage" and line["tiers"] != [] and number(line["billable"]) <= UNIT_BY_UNIT_MAX
        problem = compare_bill(record, counts) if "bill" in record else compare_credits(record, counts)
        if problem is not None:
            wrong += 1
            if len(shown) < SHOWN_MAX:
                shown.append({"pair": record["pair"], "problem": problem})
    report = {"bills": bills, "lines": counts, "unitByUnit": unit_by_unit, "mismatches": wrong, "shown": shown}
    json.dump(report, sys.stdout, ensure_ascii=False)


main()
