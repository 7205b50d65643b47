#!/usr/bin/env python3
"""Rebuilds a statement of Tallyhouse from the usage events and the plan in its export, with no code of the product.

    verify-statement.py EXPORT [--previous EXPORT] [--digest HEX] [--digests FILE]

EXPORT     what `tallyhouse explain ID --export FILE` wrote
--previous the export of the statement before it, for an adjustment: its figures are what the adjustment starts from
--digest   the statement's digest, held elsewhere since the day it was sealed
--digests  a file of lines `DIGEST ID`, such as a ledger of them; it must name this statement

Exit code 0: every quantity, tier, amount and digest is what it must be. 1: it is not; each line says where, what was found
and what it must be. 2: there is nothing to judge (wrong arguments, an unreadable file).

docs/statements.md says what is covered. Needs Python 3.8 or later and nothing else. Money and quantities are integers and
Fractions; no float is ever made.
"""
import argparse
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta, timezone
from fractions import Fraction

PROBLEMS_MAX = 20
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
INSTANT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{3}))?Z\Z", re.ASCII)
DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?\Z", re.ASCII)
PRICE = re.compile(r"(?:0|[1-9]\d*)(?:\.\d+)?\Z", re.ASCII)
PLACE = re.compile(r"(0|[1-9]\d*)/(0|[1-9]\d*)/(0|[1-9]\d*)\Z", re.ASCII)
UNIQUE = re.compile(r"[0-9a-f]{32}\Z", re.ASCII)
SURROGATE = re.compile("[\ud800-\udfff]")
AGGREGATIONS = ("sum", "count", "max", "min", "latest", "unique_count")
# Fraction digits of an amount: two, but for these currencies.
DIGITS = dict.fromkeys("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split(), 0)
DIGITS.update(dict.fromkeys("bhd jod kwd omr tnd".split(), 3))
MONTHS = {"month": 1, "year": 12}

STATEMENT = "schema id mode customer seq previous period closing cut versionVector plan rules totals lines total totalMinor difference reason actor"
FIGURES = ("quantity", "billable", "amount")


class Unreadable(Exception):
    """The file is no export: there is nothing to judge."""


class Refused(Exception):
    """One thing is not what it must be, and nothing behind it can be judged."""


class Report:
    """What was found wrong, in the order of finding."""

    def __init__(self):
        self.problems = []
        self.count = 0

    def add(self, where, what):
        self.count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{where}: {what}")

    def differ(self, where, found, wanted):
        if found != wanted:
            self.add(where, f"found {show(found)}, must be {show(wanted)}")


def show(value):
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 200 else text[:200] + "…"


def need(is_so, where, what):
    if not is_so:
        raise Refused(f"{where}: {what}")


# Reading ------------------------------------------------------------------------------------------------------------------


def no_float(text):
    raise Refused(f"a number that is no whole number: {text}; decimals are text")


def members(pairs):
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Refused("an object names one member twice")
    return value


def read_json(text):
    return json.loads(text, object_pairs_hook=members, parse_float=no_float, parse_constant=no_float)


def fields(value, names, where):
    """Checks that an object has these members and no other."""
    need(isinstance(value, dict), where, "must be an object")
    wanted = names.split()
    for name in wanted:
        need(name in value, where, f"has no {name}")
    for name in value:
        need(name in wanted, where, f"has a member {name} that no statement has")
    return value


def text_of(value, where):
    need(isinstance(value, str), where, "must be text")
    return value


def whole(value, where):
    need(type(value) is int and 0 <= value < 2**53, where, "must be a whole number of 0 or more")
    return value


def listed(value, where):
    need(isinstance(value, list), where, "must be a list")
    return value


def instant(value, where):
    """Epoch milliseconds. One text for each instant: milliseconds only when there are any."""
    match = INSTANT.match(value) if isinstance(value, str) else None
    need(match is not None and match[7] != "000", where, f"is no instant as statements write it: {show(value)}")
    try:
        seconds = datetime(*(int(part) for part in match.groups()[:6]), tzinfo=timezone.utc) - EPOCH
    except ValueError:
        raise Refused(f"{where}: names no real date: {value}") from None
    return seconds // timedelta(seconds=1) * 1000 + int(match[7] or 0)


def decimal(value, where, pattern=DECIMAL):
    need(isinstance(value, str) and len(value) < 200 and pattern.match(value), where, f"is no decimal: {show(value)}")
    need(value != "-0", where, "is -0")
    return Fraction(value)


def plain(value):
    """Decimal text of a Fraction: all the digits it needs and none more."""
    digits = 0
    while value.denominator != 1 and digits < 400:
        value *= 10
        digits += 1
    assert value.denominator == 1, "a sum of products of decimals is a decimal"
    return fixed_text(value.numerator, digits)


def fixed_text(number, digits):
    sign, text = ("-" if number < 0 else ""), str(abs(number)).rjust(digits + 1, "0")
    return sign + text if digits == 0 else f"{sign}{text[:-digits]}.{text[-digits:]}"


def canonical(value):
    """JSON with sorted names and no blanks, in UTF-8: the bytes that are digested."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


# The period ---------------------------------------------------------------------------------------------------------------


def add_months(anchor, months):
    """Counted from the anchor itself; the month's last day where it has no such day."""
    date = EPOCH + timedelta(milliseconds=anchor)
    month = date.year * 12 + date.month - 1 + months
    year, month = divmod(month, 12)
    last = (datetime(year + (month == 11), (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
    found = date.replace(year=year, month=month + 1, day=min(date.day, last))
    return (found - EPOCH) // timedelta(milliseconds=1)


def boundary_after(start, anchor, interval):
    step = MONTHS[interval]
    first, last = EPOCH + timedelta(milliseconds=anchor), EPOCH + timedelta(milliseconds=start)
    steps = ((last.year - first.year) * 12 + last.month - first.month) // step
    while add_months(anchor, steps * step) <= start:
        steps += 1
    return add_months(anchor, steps * step)


def statement_id(mode, customer, start, seq):
    digest = hashlib.sha256(canonical([mode, customer, start, seq])).digest()
    bits = "".join(f"{byte:08b}" for byte in digest)
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "st_" + "".join(letters[int(bits[at : at + 5], 2)] for at in range(0, 130, 5))


def check_frame(statement, report):
    """Everything around the figures: identity, period, cut. Returns (start, end, cut)."""
    fields(statement, STATEMENT, "statement")
    report.differ("statement.schema", statement["schema"], "tallyhouse.statement/1")
    period = fields(statement["period"], "start end anchor interval isCutShort", "statement.period")
    start, end = instant(period["start"], "period.start"), instant(period["end"], "period.end")
    anchor = instant(period["anchor"], "period.anchor")
    cut = instant(statement["cut"], "statement.cut")
    seq = whole(statement["seq"], "statement.seq")
    need(statement["mode"] in ("live", "test"), "statement.mode", "must be live or test")
    text_of(statement["customer"], "statement.customer")
    for name in ("reason", "actor"):
        need(statement[name] is None or isinstance(statement[name], str), f"statement.{name}", "must be text or null")
    wanted = statement_id(statement["mode"], statement["customer"], period["start"], seq)
    report.differ("statement.id (made of mode, customer, period start and seq)", statement["id"], wanted)
    check_previous(statement, seq, report)
    need(period["interval"] in MONTHS, "period.interval", "must be month or year")
    need(type(period["isCutShort"]) is bool, "period.isCutShort", "must be true or false")
    need(start < end, "period", "must start before it ends")
    boundary = boundary_after(start, anchor, period["interval"])
    report.differ("period.isCutShort", period["isCutShort"], end < boundary)
    if end > boundary or not period["isCutShort"]:
        if end != boundary:
            wanted = (EPOCH + timedelta(milliseconds=boundary)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            report.add("period.end", f"found {period['end']}, must be {wanted}Z, the next boundary of its anchor")
    check_cut(statement, end, cut, report)
    return start, end, cut


def check_previous(statement, seq, report):
    previous = statement["previous"]
    if seq == 0:
        report.differ("statement.previous", previous, None)
        return
    fields(previous, "id digest", "statement.previous")
    wanted = statement_id(statement["mode"], statement["customer"], statement["period"]["start"], seq - 1)
    report.differ("previous.id", previous["id"], wanted)
    need(re.match(r"[0-9a-f]{64}\Z", text_of(previous["digest"], "previous.digest")), "previous.digest", "is no digest")


def check_cut(statement, end, cut, report):
    closing = fields(statement["closing"], "latenessSeconds bookingWindowSeconds", "statement.closing")
    lateness = whole(closing["latenessSeconds"], "closing.latenessSeconds") * 1000
    window = whole(closing["bookingWindowSeconds"], "closing.bookingWindowSeconds") * 1000
    need(window > 0, "closing.bookingWindowSeconds", "must be more than 0")
    first = -(-(end + lateness) // window) * window
    if statement["seq"] == 0 and cut != first:
        report.add("statement.cut", "must be the period's end and the lateness, rounded up to the booking window")
    if statement["seq"] > 0 and (cut <= first or cut % window != 0):
        report.add("statement.cut", "must be a booking window's start behind the first statement's cut")
    vector = fields(statement["versionVector"], "stream offsets", "versionVector")
    whole(vector["stream"], "versionVector.stream")
    for offset in listed(vector["offsets"], "versionVector.offsets"):
        whole(offset, "versionVector.offsets")


# The plan -----------------------------------------------------------------------------------------------------------------


class Item:
    """One item of the plan, and what the usage events that go by make of it."""

    def __init__(self, key, rule, where, head):
        self.key = key
        self.aggregation = rule["aggregation"]
        self.width = len(rule["dimensions"])
        self.where = [(rule["dimensions"].index(name), frozenset(values)) for name, values in where.items()]
        self.label = (rule["meter"], rule["version"])
        self.hash = hashlib.sha256(head)
        self.events = 0
        self.last = None
        self.quantity = None
        self.texts = set()

    def holds(self, dims):
        return all(dims[position] in values for position, values in self.where)

    def add(self, value, where):
        if self.aggregation == "unique_count":
            need(UNIQUE.match(value), where, "its value must be 32 hex digits, of the text that is told apart")
            self.texts.add(value)
            return
        need(len(value) < 80 and DECIMAL.match(value) and value != "-0", where, f"its value is no decimal: {show(value)}")
        whole_part, _, fraction = value.partition(".")
        need(len(fraction) <= 9, where, "its value has more than nine fraction digits")
        quantity = int(whole_part + fraction.ljust(9, "0"))
        if self.aggregation == "count":
            need(value == "1", where, f"its value counts {value}, must be 1")
        if self.quantity is None or self.aggregation == "latest":
            self.quantity = quantity
        elif self.aggregation in ("sum", "count"):
            self.quantity += quantity
        else:
            self.quantity = (max if self.aggregation == "max" else min)(self.quantity, quantity)

    def total(self):
        """Units: nothing counted is 0."""
        if self.aggregation == "unique_count":
            return Fraction(len(self.texts))
        return Fraction(self.quantity or 0, 10**9)


def read_items(statement):
    """The plan's items by key, each with its meter's rule."""
    plan = fields(statement["plan"], "plan currency fee items", "plan")
    text_of(plan["plan"], "plan.plan")
    need(re.match(r"[a-z]{3}\Z", text_of(plan["currency"], "plan.currency")), "plan.currency", "must be a currency")
    decimal(plan["fee"], "plan.fee", PRICE)
    rules = {}
    for rule in listed(statement["rules"], "rules"):
        fields(rule, "meter version aggregation dimensions", "rules")
        need(rule["aggregation"] in AGGREGATIONS, "rules", f"no aggregation: {show(rule['aggregation'])}")
        label = (text_of(rule["meter"], "rules.meter"), whole(rule["version"], "rules.version"))
        need(not rules or label > max(rules), "rules", "must stand in order, each meter version once")
        names = [text_of(name, "rules.dimensions") for name in listed(rule["dimensions"], "rules.dimensions")]
        need(len(set(names)) == len(names), "rules.dimensions", "name a dimension twice")
        rules[label] = rule
    items = {}
    for item in listed(plan["items"], "plan.items"):
        where = f"plan item {show(item.get('key') if isinstance(item, dict) else item)}"
        fields(item, "key meter meterVersion where included price", where)
        key, label = text_of(item["key"], where), (item["meter"], item["meterVersion"])
        need(key != "fee" and key not in items, where, "stands twice, or is called fee")
        need(label in rules, where, f"there is no rule of {label[0]}@{label[1]}")
        need(isinstance(item["where"], dict), f"{where}.where", "must be an object")
        for name, values in item["where"].items():
            need(name in rules[label]["dimensions"], f"{where}.where", f"{name} is no dimension of the meter")
            need(all(isinstance(value, str) for value in listed(values, where)), where, "its where must list text")
        if item["included"] is not None:
            decimal(item["included"], f"{where}.included", PRICE)
        items[key] = Item(key, rules[label], item["where"], b"tallyhouse.events/1\n")
    need({item.label for item in items.values()} == set(rules), "rules", "must be those of the plan's items, no other")
    return items


# Usage events -------------------------------------------------------------------------------------------------------------


class Events:
    """Takes the usage events of an export one by one."""

    def __init__(self, statement, items, span):
        self.items = items
        self.start, self.end, self.cut = span
        self.stream = statement["versionVector"]["stream"]
        self.offsets = statement["versionVector"]["offsets"]
        # Identity → when and where it stands, and place → identity: each usage event is one thing in all items.
        self.facts = {}
        self.places = {}
        self.count = 0
        by_meter = {}
        for item in items.values():
            by_meter.setdefault(item.label, []).append(item)
        self.siblings = {item.key: by_meter[item.label] for item in items.values()}

    def add(self, line, where):
        fields(line, "item event", where)
        item = self.items.get(line["item"]) if isinstance(line["item"], str) else None
        need(item is not None, where, f"the plan has no item {show(line['item'])}")
        event = listed(line["event"], where)
        need(len(event) == 7, where, "a usage event has seven parts")
        source, event_id, occurred, booked, place, dims, value = event
        where = f"{where}, item {item.key}, usage event {show(source)} {show(event_id)}"
        for text in (source, event_id, value):
            text_of(text, where)
        occurred_at, booked_at = instant(occurred, where), instant(booked, where)
        need(self.start <= occurred_at < self.end, where, f"occurred {occurred}, outside the period")
        need(booked_at < self.cut, where, f"was booked {booked}, not before the cut")
        order = (occurred_at, *self.place(place, where))
        need(item.last is None or item.last < order, where, "does not stand behind the one before it")
        item.last = order
        self.know((source, event_id), (occurred, booked, place), where)
        need(len(listed(dims, where)) == item.width, where, f"has {len(dims)} dimensions, must have {item.width}")
        need(all(isinstance(text, str) for text in dims), where, "its dimensions must be text")
        owners = [one.key for one in self.siblings[item.key] if one.holds(dims)]
        need(owners == [item.key], where, f"with dimensions {show(dims)} belongs to {owners or 'no item'}")
        item.add(value, where)
        item.hash.update(canonical(event) + b"\n")
        item.events += 1
        self.count += 1

    def place(self, place, where):
        match = PLACE.match(place) if isinstance(place, str) else None
        need(match is not None, where, f"no place in the log: {show(place)}")
        stream, partition, offset = (int(part) for part in match.groups())
        if stream == self.stream:
            need(partition < len(self.offsets), where, f"there is no partition {partition} in the version vector")
            need(offset < self.offsets[partition], where, f"stands at {place}, behind the version vector")
        return stream, partition, offset

    def know(self, identity, fact, where):
        key, known = short(identity), short(fact)
        need(self.facts.setdefault(key, known) == known, where, "stands here with other instants or at another place")
        need(self.places.setdefault(fact[2], key) == key, where, f"stands at {fact[2]}, where another one stands")


def short(parts):
    return hashlib.sha256(canonical(parts)).digest()[:16]


def check_totals(statement, items, report):
    """Totals from the usage events. Returns (quantity, credits) by item, as they must be."""
    rebuilt = {}
    totals = listed(statement["totals"], "totals")
    report.differ("totals, their items", [one.get("item") if isinstance(one, dict) else one for one in totals], list(items))
    plans = {item["key"]: item for item in statement["plan"]["items"]}
    for total in totals:
        fields(total, "item quantity credits events eventsDigest", "totals")
        item = items.get(total["item"])
        if item is None:
            continue
        where, quantity = f"total of {item.key}", item.total()
        report.differ(f"{where}, events", total["events"], item.events)
        report.differ(f"{where}, quantity", total["quantity"], plain(quantity))
        report.differ(f"{where}, eventsDigest", total["eventsDigest"], item.hash.hexdigest())
        credits = decimal(total["credits"], f"{where}, credits")
        beyond = max(Fraction(0), quantity - Fraction(plans[item.key]["included"] or "0"))
        if not 0 <= credits <= beyond:
            report.add(f"{where}, credits", f"found {total['credits']}, must be from 0 to {plain(beyond)}")
        rebuilt[item.key] = (quantity, credits)
    return rebuilt


# Money --------------------------------------------------------------------------------------------------------------------


def rounded(exact, digits):
    """Half away from zero. Returns minor units."""
    scaled = abs(exact) * 10**digits
    minor = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return -minor if exact < 0 else minor


def spans_of(price, where):
    """Tiers as (from, upTo or None, unit, flat); units in (from, upTo]."""
    tiers, spans, start = listed(price["tiers"], where), [], Fraction(0)
    need(len(tiers) > 0, where, "has no tier")
    for number, tier in enumerate(tiers):
        fields(tier, "upTo unit flat", f"{where} tier {number + 1}")
        is_last = number == len(tiers) - 1
        need((tier["upTo"] == "inf") == is_last, where, "the last tier, and no other, goes up to inf")
        end = None if is_last else decimal(tier["upTo"], f"{where} tier {number + 1}", PRICE)
        need(end is None or end > start, where, "its tiers do not rise")
        spans.append((start, end, decimal(tier["unit"], where, PRICE), decimal(tier["flat"], where, PRICE)))
        start = end
    return spans


def parts_of(price, units, is_covered, where):
    """What each tier that is reached contributes: (from, upTo, quantity, unit, flat)."""
    model = price.get("model") if isinstance(price, dict) else None
    zero = Fraction(0)
    if model == "per_unit":
        fields(price, "model unit", where)
        return [(zero, None, units, decimal(price["unit"], where, PRICE), zero)]
    if model == "package":
        fields(price, "model size price round", where)
        size = decimal(price["size"], where, PRICE)
        need(size > 0 and price["round"] in ("up", "down"), where, "a package needs a size, and to be rounded up or down")
        packages = units // size if price["round"] == "down" else -(-units // size)
        return [(zero, None, Fraction(packages), decimal(price["price"], where, PRICE), zero)]
    need(model in ("graduated", "volume"), where, f"no price: {show(model)}")
    fields(price, "model tiers", where)
    # The first tier is reached by 0 units, too (its flat price is billed), unless included units cover them.
    reached = [span for span in spans_of(price, where) if units > span[0] or (units == 0 == span[0] and not is_covered)]
    if model == "volume":
        return [(low, high, units, unit, flat) for low, high, unit, flat in reached if high is None or units <= high]
    return [
        (low, high, (units if high is None else min(units, high)) - low, unit, flat) for low, high, unit, flat in reached
    ]


def tier_line(part):
    low, high, quantity, unit, flat = part
    return {
        "from": plain(low),
        "upTo": "inf" if high is None else plain(high),
        "quantity": plain(quantity),
        "unit": plain(unit),
        "flat": plain(flat),
        "amount": plain(quantity * unit + flat),
    }


def line_of(head, parts, price, digits):
    """One line, from its head (what was counted) and its parts."""
    exact = sum((quantity * unit + flat for _, _, quantity, unit, flat in parts), Fraction(0))
    line = {
        **head,
        "tiers": [tier_line(part) for part in parts],
        "exact": plain(exact),
        "amount": fixed_text(rounded(exact, digits), digits),
    }
    return {**line, "steps": steps_of(line, price, digits)}


def usage_line(item, quantity, credits, digits):
    included = Fraction(item["included"] or "0")
    units = max(Fraction(0), quantity - included) - credits
    head = {
        "key": item["key"],
        "kind": "usage",
        "meter": item["meter"],
        "meterVersion": item["meterVersion"],
        "quantity": plain(quantity),
        "included": plain(included),
        "credits": plain(credits),
        "billable": plain(units),
    }
    price, where = item["price"], f"price of {item['key']}"
    parts = [] if price is None else parts_of(price, units, included > 0, where)
    return line_of(head, parts, price, digits)


def fee_line(fee, digits):
    head = {"key": "fee", "kind": "fee", "meter": None, "meterVersion": None, "quantity": "1"}
    head.update({"included": "0", "credits": "0", "billable": "1"})
    return line_of(head, [(Fraction(0), None, Fraction(1), fee, Fraction(0))], None, digits)


def part_sum(part):
    flat = "" if part["flat"] == "0" else f" + {part['flat']}"
    return f"{part['quantity']} × {part['unit']}{flat} = {part['amount']}"


def tier_name(part):
    if part["upTo"] == "inf":
        return "all" if part["from"] == "0" else f"above {part['from']}"
    return f"up to {part['upTo']}" if part["from"] == "0" else f"above {part['from']} up to {part['upTo']}"


def steps_of(line, price, digits):
    """The arithmetic as the statement shows it."""
    steps = [] if line["kind"] == "fee" else counted_steps(line)
    model = None if price is None else price["model"]
    if not line["tiers"]:
        steps += ["no price"] if price is None else []
    elif model == "package":
        packages = line["tiers"][0]["quantity"]
        steps += [f"{line['billable']} in packages of {price['size']}, rounded {price['round']}: {packages}"]
        steps += [part_sum(line["tiers"][0])]
    elif model in ("graduated", "volume"):
        steps += [f"{tier_name(part)}: {part_sum(part)}" for part in line["tiers"]]
        if len(line["tiers"]) > 1:
            steps += [" + ".join(part["amount"] for part in line["tiers"]) + f" = {line['exact']}"]
    else:
        steps += [part_sum(line["tiers"][0])]
    if len(line["exact"].partition(".")[2]) > digits:
        steps += [f"{line['exact']} ≈ {line['amount']}, rounded to {digits} digits"]
    return steps


def counted_steps(line):
    is_negative = line["quantity"].startswith("-")
    steps = [f"used {line['quantity']}" + (", rated as 0" if is_negative else "")]
    terms = ["0" if is_negative else line["quantity"]]
    terms += [] if line["included"] == "0" else [f"− {line['included']} included"]
    terms += [] if line["credits"] == "0" else [f"− {line['credits']} prepaid"]
    if len(terms) > 1:
        steps.append(" ".join(terms) + (" ≤ 0" if line["billable"] == "0" else f" = {line['billable']}"))
    return steps


def check_lines(statement, rebuilt, report):
    """Every line from the plan and the totals that were rebuilt. Returns them."""
    plan = statement["plan"]
    digits = DIGITS.get(plan["currency"], 2)
    fee = decimal(plan["fee"], "plan.fee", PRICE)
    wanted = [] if fee == 0 else [fee_line(fee, digits)]
    for item in plan["items"]:
        quantity, credits = rebuilt.get(item["key"], (Fraction(0), Fraction(0)))
        wanted.append(usage_line(item, quantity, credits, digits))
    lines = listed(statement["lines"], "lines")
    keys = [line.get("key") if isinstance(line, dict) else line for line in lines]
    report.differ("lines, their keys", keys, [line["key"] for line in wanted])
    for found, line in zip(lines, wanted):
        if isinstance(found, dict):
            compare_line(found, line, report)
    minor = sum(int(line["amount"].replace(".", "")) for line in wanted)
    report.differ("statement.total", statement["total"], fixed_text(minor, digits))
    report.differ("statement.totalMinor", statement["totalMinor"], str(minor))
    return wanted


def compare_line(found, wanted, report):
    where = f"line {wanted['key']}"
    for name in wanted:
        if name == "tiers" and isinstance(found.get(name), list) and len(found[name]) == len(wanted[name]):
            for number, (one, other) in enumerate(zip(found[name], wanted[name])):
                report.differ(f"{where}, tier part {number + 1}", one, other)
        else:
            report.differ(f"{where}, {name}", found.get(name), wanted[name])
    for name in found:
        if name not in wanted:
            report.add(where, f"has a member {name} that no line has")


# Adjustments --------------------------------------------------------------------------------------------------------------


def figures_of(line, digits):
    return {name: line[name] for name in FIGURES} if line else {"quantity": "0", "billable": "0", "amount": fixed_text(0, digits)}


def difference_line(key, before, after, digits):
    """What an adjustment says of one line."""
    old, new = figures_of(before, digits), figures_of(after, digits)
    difference = {name: plain(Fraction(new[name]) - Fraction(old[name])) for name in ("quantity", "billable")}
    minor = (Fraction(new["amount"]) - Fraction(old["amount"])) * 10**digits
    difference["amount"] = fixed_text(minor.numerator, digits)
    return {"key": key, "before": old if before else None, "after": new if after else None, "difference": difference}


def differs(line):
    return any(Fraction(line["difference"][name]) != 0 for name in FIGURES)


def check_difference(statement, lines, previous, report):
    """The difference of an adjustment: after is this statement, before the one it names (checked against it when given)."""
    difference = statement["difference"]
    if statement["seq"] == 0:
        report.differ("statement.difference", difference, None)
        return
    digits = DIGITS.get(statement["plan"]["currency"], 2)
    fields(difference, "lines total totalMinor", "difference")
    after, minor, seen = {line["key"]: line for line in lines}, Fraction(0), set()
    for line in listed(difference["lines"], "difference.lines"):
        key = fields(line, "key before after difference", "difference.lines")["key"]
        where = f"difference of line {key}"
        need(isinstance(key, str) and key not in seen, where, "stands twice")
        seen.add(key)
        if line["before"] is not None:
            fields(line["before"], " ".join(FIGURES), f"{where}, before")
            for name in ("quantity", "billable"):
                decimal(line["before"][name], f"{where}, before")
            need(re.match(r"-?\d+(\.\d+)?\Z", str(line["before"]["amount"])), where, "before has no amount")
        wanted = difference_line(key, line["before"], after.get(key), digits)
        for name in wanted:
            report.differ(f"{where}, {name}", line[name], wanted[name])
        if not differs(wanted):
            report.add(where, "has no difference")
        minor += Fraction(wanted["difference"]["amount"]) * 10**digits
    report.differ("difference.total", difference["total"], fixed_text(minor.numerator, digits))
    report.differ("difference.totalMinor", difference["totalMinor"], str(minor.numerator))
    if previous is not None:
        check_against_previous(statement, previous, report)


def check_against_previous(statement, previous, report):
    report.differ("previous.id", statement["previous"]["id"], previous["id"])
    report.differ("previous.digest", statement["previous"]["digest"], hashlib.sha256(canonical(previous)).hexdigest())
    digits = DIGITS.get(statement["plan"]["currency"], 2)
    old = {line["key"]: line for line in previous["lines"]}
    new = {line["key"]: line for line in statement["lines"]}
    keys = [*new, *(key for key in old if key not in new)]
    wanted = [difference_line(key, old.get(key), new.get(key), digits) for key in keys]
    wanted = [line for line in wanted if differs(line)]
    report.differ("difference.lines, against the previous statement", statement["difference"]["lines"], wanted)


# The whole ----------------------------------------------------------------------------------------------------------------


def lines_of(file):
    """Non-empty lines with their numbers; the last one ends with a newline, or the export was cut off."""
    for number, line in enumerate(file, 1):
        need(line.endswith("\n"), f"row {number}", "has no end: the export was cut off")
        try:
            yield number, read_json(line)
        except ValueError:
            raise Refused(f"row {number}: is no JSON") from None
        except RecursionError:
            raise Refused(f"row {number}: is nested too deep") from None


def read_head(rows):
    number, head = next(rows, (1, None))
    if not isinstance(head, dict) or head.get("schema") != "tallyhouse.export/1":
        raise Unreadable("this is no export of a statement: its first line must say tallyhouse.export/1")
    return fields(head, "schema statement digest", f"row {number}")


def verify(file, held, previous, report):
    """Judges one export. Returns the statement and its digest."""
    rows = lines_of(file)
    head = read_head(rows)
    statement = head["statement"]
    digest = hashlib.sha256(canonical(statement)).hexdigest()
    # The held digest first: what it refuses is refused, whatever else is found.
    for source, wanted in held(statement):
        report.differ(f"digest, as {source} holds it", digest, wanted)
    report.differ("digest", head["digest"], digest)
    span = check_frame(statement, report)
    items = read_items(statement)
    events = Events(statement, items, span)
    end = None
    for number, row in rows:
        need(end is None, f"row {number}", "stands behind the end")
        if isinstance(row, dict) and "end" in row:
            end = fields(fields(row, "end", f"row {number}")["end"], "events", f"row {number}")
        else:
            events.add(row, f"row {number}")
    need(end is not None, "the export", "has no end: it was cut off")
    report.differ("the export's end, events", end["events"], events.count)
    lines = check_lines(statement, check_totals(statement, items, report), report)
    check_difference(statement, lines, previous, report)
    return statement, digest, events.count


def held_digests(options):
    """What is held elsewhere: (source, digest) pairs for a statement."""

    def held(statement):
        if options.digest is not None:
            yield "--digest", options.digest.lower()
        if options.digests is not None:
            name = statement.get("id") if isinstance(statement, dict) else None
            with open(options.digests, encoding="utf-8") as file:
                found = [line.split()[0].lower() for line in file if line.split()[1:] == [name]]
            need(len(found) > 0, options.digests, f"holds no digest of {name}")
            for digest in found:
                yield options.digests, digest

    return held


def read_previous(path):
    if path is None:
        return None
    with open(path, encoding="utf-8", newline="\n") as file:
        return read_head(lines_of(file))["statement"]


def main(arguments):
    parser = argparse.ArgumentParser(description="Rebuilds a statement from its export.")
    parser.add_argument("export")
    parser.add_argument("--previous", help="the export of the statement before an adjustment")
    parser.add_argument("--digest", help="the digest that is held elsewhere")
    parser.add_argument("--digests", help="a file of lines `DIGEST ID`")
    options = parser.parse_args(arguments)
    report = Report()
    try:
        previous = read_previous(options.previous)
        with open(options.export, encoding="utf-8", newline="\n") as file:
            statement, digest, events = verify(file, held_digests(options), previous, report)
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        print(f"cannot verify {options.export}: {error}", file=sys.stderr)
        return 2
    except Refused as refusal:
        report.add("refused", str(refusal))
    for problem in report.problems:
        print(problem)
    if report.count > len(report.problems):
        print(f"… and {report.count - len(report.problems)} more")
    if report.count > 0:
        print(f"REFUSED {options.export}: {report.count} problems")
        return 1
    total = f"{statement['total']} {statement['plan']['currency']}"
    print(f"VERIFIED {statement['id']}: {len(statement['lines'])} lines, {events} usage events, total {total}")
    print(f"digest {digest}" + ("" if options.digest or options.digests else " (compare it with the one you hold)"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
