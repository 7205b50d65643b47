"""An independent client asks the front everything that a user of it would. Prints one JSON object."""

import datetime
import json
import sys

import clickhouse_connect

host, port, user, password = sys.argv[1:]
client = clickhouse_connect.get_client(host=host, port=int(port), username=user, password=password)
client.command("CREATE TABLE readings (id UInt32, name String, at DateTime64(3, 'UTC'), amount Decimal(38, 9)) ENGINE = MergeTree ORDER BY id")
at = datetime.datetime(2026, 11, 21, 12, 0, 0, 123000, tzinfo=datetime.timezone.utc)
rows = [[n, f"name {n} ' \\ \t", at, "12345678901234567890.000000001"] for n in range(5000)]
inserted = client.insert("readings", rows, column_names=["id", "name", "at", "amount"])

found = client.query(
    "SELECT name, at, amount FROM readings WHERE id IN {ids:Array(UInt32)} AND name = {name:String}",
    parameters={"ids": [1, 2, 3], "name": "name 2 ' \\ \t"},
    settings={"max_threads": 1},
)
broken = ""
try:
    with client.query_row_block_stream(
        "SELECT throwIf(number = 900000, 'too far') AS broken, number FROM numbers(1000000)",
        settings={"max_block_size": 10000},
    ) as stream:
        for _ in stream:
            pass
except clickhouse_connect.driver.exceptions.Error as error:
    broken = str(error)
unknown = ""
try:
    client.query("SELECT * FROM missing")
except clickhouse_connect.driver.exceptions.DatabaseError as error:
    unknown = str(error)
print(
    json.dumps(
        {
            "ping": client.ping(),
            "version": client.server_version,
            "written": inserted.written_rows,
            "count": client.command("SELECT count() FROM readings"),
            "found": [[row[0], row[1].isoformat(), str(row[2])] for row in found.result_rows],
            "columns": list(client.query("SELECT * FROM readings LIMIT 0").column_names),
            "numbers": client.query("SELECT sum(number), count() FROM numbers(300000)").result_rows,
            "rows": len(client.query("SELECT number FROM numbers(300000)").result_rows),
            "broken": broken,
            "unknown": unknown,
        }
    )
)
