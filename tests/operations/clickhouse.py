"""ClickHouse in this process (chdb). Reads a line of JSON per query, `{"sql": …}`, and writes a line: `{"rows": …}` or `{"error": …}`.

Only the package chdb-core-lite is installed. It imports pyarrow, for results as data frames, of which there are none here.
"""

import json
import sys
from unittest.mock import MagicMock

sys.modules["pyarrow"] = MagicMock()

from chdb import session  # noqa: E402

database = session.Session()
# As the platform: an integer of 64 bits is a string.
database.query("SET output_format_json_quote_64bit_integers = 1")
for line in sys.stdin:
    try:
        answer = str(database.query(json.loads(line)["sql"], "JSON"))
        reply = {"rows": json.loads(answer)["data"] if answer.strip() else []}
    except RuntimeError as error:
        reply = {"error": str(error)}
    print(json.dumps(reply), flush=True)
