"""Changes exports of statements at random, and shows which changes tools/verify-statement.py refuses.

    mutate.py FOLDER --mutations N --seed S

FOLDER holds exports as NAME.jsonl, and for an adjustment NAME-adjusted.jsonl. Every change is made by somebody who knows the
format: he corrects the counts and recomputes every digest. What he cannot do without being noticed is to say one thing in
two places differently. So each mutation states beforehand whether it contradicts the rest of the export:

- a contradiction must be refused by recomputation alone;
- a wholly consistent forgery (nothing in the file speaks against it) must be accepted by recomputation, or it would be none,
  and refused with the digest that was held elsewhere.

Prints a table by kind, the first failures, and last `N passed, N failed`.
"""
import argparse
import copy
import hashlib
import importlib.util
import io
import json
import pathlib
import random
import sys
from datetime import datetime, timedelta, timezone
from fractions import Fraction

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "verify-statement.py"
FAILURES_SHOWN = 10


def load_tool():
    spec = importlib.util.spec_from_file_location("verify_statement", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


tool = load_tool()


class Export:
    """An export in parts: its statement, its rows and its count."""

    def __init__(self, name, text):
        rows = [json.loads(line) for line in text.splitlines()]
        self.name = name
        self.text = text
        self.statement = rows[0]["statement"]
        self.digest = rows[0]["digest"]
        self.rows = rows[1:-1]

    def copy(self):
        made = copy.copy(self)
        made.statement = json.loads(json.dumps(self.statement))
        # Events themselves are never changed in place.
        made.rows = [dict(row) for row in self.rows]
        return made

    def item(self, key):
        return next(item for item in self.statement["plan"]["items"] if item["key"] == key)

    def total(self, key):
        return next(total for total in self.statement["totals"] if total["item"] == key)

    def rule(self, key):
        item = self.item(key)
        label = (item["meter"], item["meterVersion"])
        return next(rule for rule in self.statement["rules"] if (rule["meter"], rule["version"]) == label)

    def of_item(self, key):
        return [row["event"] for row in self.rows if row["item"] == key]

    def fold(self, key):
        """The item's quantity in the plainest way, apart from the verifier's."""
        aggregation, values = self.rule(key)["aggregation"], [event[6] for event in self.of_item(key)]
        if aggregation == "unique_count":
            return Fraction(len(set(values)))
        numbers = [Fraction(value) for value in values]
        if not numbers:
            return Fraction(0)
        return {"sum": sum, "count": sum, "max": max, "min": min, "latest": lambda all_of: all_of[-1]}[aggregation](numbers)

    def folds(self):
        return {item["key"]: self.fold(item["key"]) for item in self.statement["plan"]["items"]}

    def order(self):
        """Puts rows into the order of digests, as a forger would."""
        self.rows.sort(key=lambda row: order_of(row["event"]))

    def write(self, stated_digest=None):
        """The text with every count and digest recomputed."""
        for total in self.statement["totals"]:
            events = self.of_item(total["item"])
            total["events"] = len(events)
            text = b"tallyhouse.events/1\n" + b"".join(compact(event) + b"\n" for event in events)
            total["eventsDigest"] = hashlib.sha256(text).hexdigest()
        digest = stated_digest or hashlib.sha256(compact(self.statement)).hexdigest()
        head = {"digest": digest, "schema": "tallyhouse.export/1", "statement": self.statement}
        rows = [head, *self.rows, {"end": {"events": len(self.rows)}}]
        return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def compact(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def order_of(event):
    return (parse(event[2]), *(int(part) for part in event[4].split("/")))


def parse(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def write_instant(at):
    text = at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return (text[:-4] if text.endswith(".000") else text) + "Z"


def shifted(text, milliseconds):
    return write_instant(parse(text) + timedelta(milliseconds=milliseconds))


def other_decimal(dice, text):
    """Another decimal in its plain form, often near the first."""
    step = dice.choice(["1", "-1", "10", "0.5", "-0.25", "0.000000001", "1000"])
    value = Fraction(text) + Fraction(step)
    return tool.plain(value if value >= 0 or dice.random() < 0.5 else Fraction(text) + abs(Fraction(step)))


# Each kind takes (dice, export), changes it, and returns whether what comes out is consistent; None when there is nothing to change.


def quantity_of_total(dice, export):
    total = dice.choice(export.statement["totals"])
    total["quantity"] = other_decimal(dice, total["quantity"])
    return False


def quantity_of_line(dice, export):
    line = dice.choice(export.statement["lines"])
    name = dice.choice(["quantity", "included", "credits", "billable"])
    line[name] = other_decimal(dice, line[name])
    return False


def quantity_everywhere(dice, export):
    """Total and line agree on another quantity, priced right; the usage events say otherwise."""
    key = dice.choice(export.statement["totals"])["item"]
    export.total(key)["quantity"] = other_decimal(dice, export.total(key)["quantity"])
    rerate(export)
    return False


def tier_part(dice, export):
    parts = [part for line in export.statement["lines"] for part in line["tiers"]]
    if not parts:
        return None
    part = dice.choice(parts)
    name = dice.choice(["from", "upTo", "quantity", "unit", "flat", "amount"])
    part[name] = "7" if part[name] == "inf" else other_decimal(dice, part[name])
    return False


def tier_of_plan(dice, export):
    """A price that a line was made with."""
    items = [item for item in export.statement["plan"]["items"] if item["price"] and "tiers" in item["price"]]
    lines = {line["key"]: line for line in export.statement["lines"]}
    reached = [
        tier
        for item in items
        for tier in item["price"]["tiers"]
        if any(part["upTo"] == tier["upTo"] for part in lines[item["key"]]["tiers"])
    ]
    if not reached:
        return None
    dice.choice(reached)[dice.choice(["unit", "flat"])] = tool.plain(Fraction(dice.randint(10**6, 10**7), 1000))
    return False


def tier_not_reached(dice, export):
    """A price that no line was made with: nothing in the export speaks against it."""
    lines = {line["key"]: line for line in export.statement["lines"]}
    tiers = [
        item["price"]["tiers"][-1]
        for item in export.statement["plan"]["items"]
        if item["price"] and "tiers" in item["price"]
        if all(part["upTo"] != "inf" for part in lines[item["key"]]["tiers"])
    ]
    if not tiers:
        return None
    dice.choice(tiers)["unit"] = str(dice.randint(10**6, 10**7))
    return True


def unit_price(dice, export):
    items = [item for item in export.statement["plan"]["items"] if item["price"] and "tiers" not in item["price"]]
    if not items:
        return None
    price = dice.choice(items)["price"]
    name = "unit" if "unit" in price else "price"
    price[name] = tool.plain(Fraction(price[name]) + 1)
    return False


def included_units(dice, export):
    item = dice.choice(export.statement["plan"]["items"])
    item["included"] = other_decimal(dice, str(abs(Fraction(item["included"] or "0")).limit_denominator(1))).lstrip("-")
    line = next(line for line in export.statement["lines"] if line["key"] == item["key"])
    return Fraction(item["included"]) == Fraction(line["included"])


def amount_of_line(dice, export):
    line = dice.choice(export.statement["lines"])
    name = dice.choice(["exact", "amount"])
    line[name] = other_decimal(dice, line[name])
    return False


def amount_of_total(dice, export):
    name = dice.choice(["total", "totalMinor"])
    export.statement[name] = str(int(export.statement["totalMinor"]) + dice.choice([-100, -1, 1, 100]))
    return False


def amounts_everywhere(dice, export):
    """A line and the total are dearer by the same."""
    digits = tool.DIGITS.get(export.statement["plan"]["currency"], 2)
    line, more = dice.choice(export.statement["lines"]), dice.randint(1, 500)
    line["amount"] = tool.fixed_text(int(line["amount"].replace(".", "")) + more, digits)
    minor = int(export.statement["totalMinor"]) + more
    export.statement.update(totalMinor=str(minor), total=tool.fixed_text(minor, digits))
    return False


def fee_of_plan(dice, export):
    export.statement["plan"]["fee"] = str(int(export.statement["plan"]["fee"]) + dice.randint(1, 50))
    return False


def some_shift(dice):
    return dice.choice([-1, 1]) * dice.choice([1, 1_000, 900_000, 3_600_000, 86_400_000 - 1, dice.randint(1, 10**9)])


def boundary_start(dice, export):
    """The start moves, and with it the id, which is made of it."""
    period = export.statement["period"]
    period["start"] = shifted(period["start"], some_shift(dice))
    rename(export)
    start, end = parse(period["start"]), parse(period["end"])
    # Later, it only leaves usage outside; earlier, the anchor has a boundary between.
    is_later = start > parse(export_original(export)["period"]["start"])
    return is_later and start < end and all(parse(row["event"][2]) >= start for row in export.rows)


def boundary_end(dice, export):
    period = export.statement["period"]
    period["end"] = shifted(period["end"], some_shift(dice))
    return False


def boundary_end_and_cut(dice, export):
    """The cut follows the end, as it should."""
    shift = dice.choice([-1, 1]) * 900_000 * dice.randint(1, 500)
    export.statement["period"]["end"] = shifted(export.statement["period"]["end"], shift)
    export.statement["cut"] = shifted(export.statement["cut"], shift)
    return False


def boundary_anchor(dice, export):
    """Another time of day: every boundary moves."""
    period = export.statement["period"]
    period["anchor"] = shifted(period["anchor"], dice.randint(1, 86_399_999))
    return False


def boundary_cut(dice, export):
    statement = export.statement
    shift = dice.choice([-1, 1]) * 900_000 * dice.randint(1, 9)
    statement["cut"] = shifted(statement["cut"], shift if statement["seq"] == 0 else shift + dice.randint(1, 899_999))
    return False


def event_dropped(dice, export):
    before = export.folds()
    export.rows.pop(dice.randrange(len(export.rows)))
    return export.folds() == before


def event_added(dice, export):
    """A usage event that never was, at a free place, of a copied kind."""
    before = export.folds()
    row = copy.deepcopy(dice.choice(export.rows))
    row["event"][1] = f"new-{dice.getrandbits(60)}"
    stream, partition, _ = row["event"][4].split("/")
    row["event"][4] = f"{stream}/{partition}/{5_000 + dice.randrange(4_000)}"
    export.rows.append(row)
    export.order()
    return export.folds() == before


def event_doubled(dice, export):
    row = copy.deepcopy(dice.choice(export.rows))
    kind = dice.choice(["same", "other place", "other id"])
    stream, partition, _ = row["event"][4].split("/")
    if kind == "other place":
        row["event"][4] = f"{stream}/{partition}/{9_000 + dice.randrange(900)}"
    if kind == "other id":
        row["event"][1] += "'"
    export.rows.insert(dice.randrange(len(export.rows) + 1), row)
    export.order()
    return False


def event_redated_outside(dice, export):
    event = changed_event(dice, export)
    period, beyond = export.statement["period"], dice.choice([0, 1, 1_000, dice.randint(0, 10**9)])
    event[2] = shifted(period["end"], beyond) if dice.random() < 0.5 else shifted(period["start"], -1 - beyond)
    export.order()
    return False


def event_redated_inside(dice, export):
    """In every item alike. Only `latest` depends on when."""
    before = export.folds()
    chosen = dice.choice(export.rows)["event"]
    period = export.statement["period"]
    span = (parse(period["end"]) - parse(period["start"])) // timedelta(milliseconds=1)
    at = shifted(period["start"], dice.randrange(span))
    if at == chosen[2]:
        return None
    for row in export.rows:
        if row["event"][:2] == chosen[:2]:
            row["event"] = [*row["event"][:2], at, *row["event"][3:]]
    export.order()
    return export.folds() == before


def event_redated_in_one_item(dice, export):
    """A usage event that two items counted now occurs twice."""
    owners = {}
    for index, row in enumerate(export.rows):
        owners.setdefault(tuple(row["event"][:2]), []).append(index)
    shared = [indexes for indexes in owners.values() if len(indexes) > 1]
    if not shared:
        return None
    index = dice.choice(dice.choice(shared))
    event = list(export.rows[index]["event"])
    event[2] = shifted(event[2], dice.choice([1, -1, 60_000]))
    export.rows[index] = {**export.rows[index], "event": event}
    export.order()
    return False


def event_booked_behind_cut(dice, export):
    changed_event(dice, export)[3] = shifted(export.statement["cut"], dice.choice([0, 1, dice.randint(0, 10**9)]))
    return False


def event_moved_as_it_is(dice, export):
    """To another item, with its dimensions as they are: consistent only where nothing tells the items apart."""
    before, index = export.folds(), dice.randrange(len(export.rows))
    row = export.rows[index]
    others = [item["key"] for item in export.statement["plan"]["items"] if item["key"] != row["item"]]
    export.rows[index] = {**row, "item": dice.choice(others)}
    return fits(export, index) and export.folds() == before


def event_moved_with_dimensions(dice, export):
    """To the other item of its meter, with the dimensions of one that is there."""
    pairs = {"calls_large": "calls_small_eu", "calls_small_eu": "calls_large"}
    indexes = [index for index, row in enumerate(export.rows) if row["item"] in pairs and export.of_item(pairs[row["item"]])]
    if not indexes:
        return None
    before, index = export.folds(), dice.choice(indexes)
    row = export.rows[index]
    key = pairs[row["item"]]
    event = [*row["event"][:5], export.of_item(key)[0][5], row["event"][6]]
    export.rows[index] = {"item": key, "event": event}
    return export.folds() == before


def event_dimensions(dice, export):
    """Dimensions that no item of the meter takes."""
    indexes = [index for index, row in enumerate(export.rows) if row["item"].startswith("calls_")]
    if not indexes:
        return None
    index = dice.choice(indexes)
    export.rows[index] = {**export.rows[index], "event": list(export.rows[index]["event"])}
    export.rows[index]["event"][5] = ["mini", "eu"]
    return False


def event_value(dice, export):
    before = export.folds()
    index = dice.randrange(len(export.rows))
    row = export.rows[index]
    event, aggregation = list(row["event"]), export.rule(row["item"])["aggregation"]
    event[6] = f"{dice.getrandbits(128):032x}" if aggregation == "unique_count" else other_decimal(dice, event[6])
    export.rows[index] = {**row, "event": event}
    return export.folds() == before and aggregation != "count"


def event_place(dice, export):
    """Behind the version vector, or where another one stands."""
    event = changed_event(dice, export)
    others = [row["event"][4] for row in export.rows if row["event"][:2] != event[:2]]
    stream = export.statement["versionVector"]["stream"]
    event[4] = dice.choice(others) if dice.random() < 0.5 else f"{stream}/{dice.randrange(3)}/{10_000 + dice.randrange(99)}"
    export.order()
    return False


def version_vector(dice, export):
    stream = str(export.statement["versionVector"]["stream"])
    places = [row["event"][4].split("/") for row in export.rows]
    partition, offset = dice.choice([(int(place[1]), int(place[2])) for place in places if place[0] == stream])
    export.statement["versionVector"]["offsets"][partition] = offset
    return False


def line_dropped(dice, export):
    export.statement["lines"].pop(dice.randrange(len(export.statement["lines"])))
    return False


def lines_swapped(dice, export):
    lines = export.statement["lines"]
    one = dice.randrange(len(lines) - 1)
    lines[one], lines[one + 1] = lines[one + 1], lines[one]
    return False


def step_text(dice, export):
    lines = [line for line in export.statement["lines"] if line["steps"]]
    if not lines:
        return None
    steps = dice.choice(lines)["steps"]
    steps[dice.randrange(len(steps))] += " "
    return False


def aggregation(dice, export):
    """Another way to join usage events: consistent where it gives the same."""
    key = dice.choice(export.statement["plan"]["items"])["key"]
    before = export.folds()
    rule = export.rule(key)
    if rule["aggregation"] in ("unique_count", "count"):
        return None
    rule["aggregation"] = dice.choice([name for name in ("sum", "max", "min", "latest") if name != rule["aggregation"]])
    return export.folds() == before


def narrowed_item(dice, export):
    """An item that takes less, with its usage events left in."""
    items = [item for item in export.statement["plan"]["items"] if item["where"] and export.of_item(item["key"])]
    if not items:
        return None
    item = dice.choice(items)
    item["where"][dice.choice(list(item["where"]))] = ["nothing"]
    return False


def currency(dice, export):
    """Consistent where both have the same fraction digits."""
    plan = export.statement["plan"]
    digits = tool.DIGITS.get(plan["currency"], 2)
    plan["currency"] = dice.choice([code for code in ("usd", "eur", "jpy", "kwd") if code != plan["currency"]])
    return tool.DIGITS.get(plan["currency"], 2) == digits


def whose(dice, export):
    """Another customer or mode; with the ids that are made of them or without."""
    statement = export.statement
    if dice.random() < 0.5:
        statement["customer"] += "x"
    else:
        statement["mode"] = "test" if statement["mode"] == "live" else "live"
    if dice.random() < 0.5:
        return False
    rename(export)
    return True


def difference(dice, export):
    stated = export.statement["difference"]
    if stated is None:
        export.statement["difference"] = {"lines": [], "total": "0", "totalMinor": "0"}
        return False
    if dice.random() < 0.3:
        stated["totalMinor"] = str(int(stated["totalMinor"]) + 1)
        return False
    line = dice.choice(stated["lines"])
    part = line[dice.choice([name for name in ("before", "after", "difference") if line[name]])]
    name = dice.choice(["quantity", "billable"])
    part[name] = other_decimal(dice, part[name])
    return False


def difference_dropped(dice, export):
    stated = export.statement["difference"]
    lines = [line for line in stated["lines"] if Fraction(line["difference"]["amount"]) != 0] if stated else []
    if not lines:
        return None
    stated["lines"].remove(dice.choice(lines))
    return False


def cut_off(dice, export):
    """The end of the file is missing; the digests are right."""
    export.cut = dice.randint(1, 3)
    return False


def stated_digest(dice, export):
    """The digest is not recomputed."""
    export.stated = f"{dice.getrandbits(256):064x}"
    return False


def forged(dice, export):
    """Usage events dropped, added or changed, and everything recomputed: only the digest that is held elsewhere tells."""
    change = dice.choice([event_dropped, event_added, event_value])
    if change(dice, export) is None or any(row["event"][6] != "1" for row in export.rows if row["item"] == "requests"):
        return None
    for key, quantity in export.folds().items():
        export.total(key)["quantity"] = tool.plain(quantity)
    rerate(export)
    return True


KINDS = [value for name, value in list(globals().items()) if getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:2] == ("dice", "export") and value.__code__.co_argcount == 2]


def changed_event(dice, export):
    index = dice.randrange(len(export.rows))
    export.rows[index] = {**export.rows[index], "event": list(export.rows[index]["event"])}
    return export.rows[index]["event"]


def fits(export, index):
    """Whether a row may stand in its item: dimensions, values, and no other row of its identity there."""
    row = export.rows[index]
    key, event = row["item"], row["event"]
    rule, where = export.rule(key), export.item(key)["where"]
    is_text = len(event[6]) == 32
    doubled = sum(other["item"] == key and other["event"][:2] == event[:2] for other in export.rows) > 1
    dims = dict(zip(rule["dimensions"], event[5]))
    return (
        not doubled
        and len(event[5]) == len(rule["dimensions"])
        and all(dims[name] in values for name, values in where.items())
        and is_text == (rule["aggregation"] == "unique_count")
        and (rule["aggregation"] != "count" or event[6] == "1")
    )


ORIGINALS = {}


def export_original(export):
    return ORIGINALS[export.name].statement


def rename(export):
    """Gives a statement the ids that are made of what it says now."""
    statement = export.statement
    names = (statement["mode"], statement["customer"], statement["period"]["start"])
    statement["id"] = tool.statement_id(*names, statement["seq"])
    if statement["previous"]:
        statement["previous"]["id"] = tool.statement_id(*names, statement["seq"] - 1)


def rerate(export):
    """Lines, totals and difference as the stated totals and the plan give them, by the verifier's own arithmetic."""
    statement, plan = export.statement, export.statement["plan"]
    digits = tool.DIGITS.get(plan["currency"], 2)
    before = {line["key"]: tool.figures_of(line, digits) for line in statement["lines"]}
    for line in (statement["difference"] or {"lines": []})["lines"]:
        before[line["key"]] = line["before"]
    lines = [] if Fraction(plan["fee"]) == 0 else [tool.fee_line(Fraction(plan["fee"]), digits)]
    for item in plan["items"]:
        lines.append(tool.usage_line(item, Fraction(export.total(item["key"])["quantity"]), Fraction(0), digits))
    minor = sum(int(line["amount"].replace(".", "")) for line in lines)
    statement.update(lines=lines, totalMinor=str(minor), total=tool.fixed_text(minor, digits))
    if statement["difference"]:
        stated = [tool.difference_line(line["key"], before.get(line["key"]), line, digits) for line in lines]
        stated = [line for line in stated if tool.differs(line)]
        minor = sum(int(line["difference"]["amount"].replace(".", "")) for line in stated)
        statement["difference"] = {"lines": stated, "total": tool.fixed_text(minor, digits), "totalMinor": str(minor)}


def judge(text, digest=None, previous=None):
    """The verifier's problems; none: accepted."""
    report = tool.Report()
    held = (lambda statement: [("--digest", digest)]) if digest else (lambda statement: [])
    try:
        tool.verify(io.StringIO(text, newline="\n"), held, previous, report)
    except tool.Refused as refusal:
        report.add("refused", str(refusal))
    return report.problems


def mutate(dice, export, kind):
    """The changed text, and whether it is consistent; None when the kind does not fit or changed nothing."""
    changed = export.copy()
    consistent = kind(dice, changed)
    if consistent is None:
        return None
    text = changed.write(getattr(changed, "stated", None))
    if hasattr(changed, "cut"):
        text = "".join(text.splitlines(True)[: -changed.cut])
    return None if text == export.write() else (text, consistent)


def failure_of(text, consistent, export):
    problems = judge(text)
    if consistent and problems:
        return f"called consistent, and refused: {problems[0]}"
    if not consistent and not problems:
        return "a contradiction, and accepted by recomputation"
    # What was refused already is refused with the held digest, too: the digest only adds a problem.
    if not problems and not judge(text, digest=export.digest):
        return "accepted with the held digest"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--mutations", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    exports = [Export(path.stem, path.read_text(encoding="utf-8")) for path in sorted(options.folder.glob("*.jsonl"))]
    ORIGINALS.update((export.name, export) for export in exports)
    passed, failures, table = 0, [], {kind.__name__: [0, 0, 0] for kind in KINDS}
    for export in exports:
        previous = ORIGINALS.get(export.name.removesuffix("-adjusted"))
        previous = None if previous is export else previous.statement
        problems = judge(export.text, export.digest, previous)
        failures += [f"{export.name}: not accepted as it is: {problems[0]}"] if problems else []
        passed += not problems
    made = 0
    while made < options.mutations:
        kind, export = KINDS[made % len(KINDS)], dice.choice(exports)
        mutation = mutate(dice, export, kind)
        if mutation is None:
            continue
        made += 1
        text, consistent = mutation
        failure = failure_of(text, consistent, export)
        row = table[kind.__name__]
        row[0] += 1
        row[1 + consistent] += failure is None
        failures += [f"{kind.__name__}, {export.name}: {failure}"] if failure else []
        passed += failure is None
    print(f"{'kind':30} {'mutations':>9} {'refused':>9} {'consistent, refused by the held digest':>40}")
    for name, (count, refused, held) in table.items():
        print(f"{name:30} {count:9} {refused:9} {held:40}")
    sums = [sum(column) for column in zip(*table.values())]
    print(f"{'all':30} {sums[0]:9} {sums[1]:9} {sums[2]:40}\n")
    for failure in failures[:FAILURES_SHOWN]:
        print(f"FAIL {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


main()
