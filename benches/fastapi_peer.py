"""The usual way to do it in Python: a FastAPI service that saves the upload and asks DuckDB.

    fastapi_peer.py DIRECTORY       # prints where it listens; DIRECTORY is for the uploads, while they are needed

upload.py measures it, with the Python of benches/.venv. It is made to be fast: uvloop and httptools, no access log,
column types given instead of guessed, DuckDB on all cores. The types are those the generated files need.
"""

import socket
import sys
import tempfile
from typing import Any

import duckdb
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

TOP = 10
TYPES = {
    "campaign_id": "VARCHAR",
    "date": "VARCHAR",
    "impressions": "UBIGINT",
    "clicks": "UBIGINT",
    "spend": "DECIMAL(18,2)",
    "conversions": "UBIGINT",
}
# The strict reader checks more; well-formed files do not need it.
OPTIONS = (
    "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', new_line = '\\r\\n', "
    "strict_mode = false, parallel = true"
)

app = FastAPI()
directory = sys.argv[1] if len(sys.argv) > 1 else None


@app.put("/v1/jobs/{name}", status_code=201)
async def upload(name: str, request: Request) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".csv") as file:
        # Straight from the event loop: the page cache takes it as fast as a thread could be asked to.
        async for chunk in request.stream():
            file.write(chunk)
        file.flush()
        return {"name": name, **await run_in_threadpool(tally, file.name)}


def tally(path: str) -> dict[str, Any]:
    with duckdb.connect() as db:
        db.execute("SET preserve_insertion_order = false")
        db.execute(
            f"""
            CREATE TEMP TABLE totals AS
            SELECT campaign_id, sum(impressions) AS total_impressions, sum(clicks) AS total_clicks,
                   sum(spend) AS total_spend, sum(conversions) AS total_conversions,
                   if(total_impressions = 0, 0, total_clicks / total_impressions) AS ctr,
                   if(total_conversions = 0, NULL, total_spend::DOUBLE / total_conversions) AS cpa
            FROM read_csv($path, {OPTIONS}, columns = {TYPES})
            GROUP BY campaign_id
            """,
            {"path": path},
        )
        return {
            "campaigns": rows(db, "ORDER BY campaign_id"),
            "top_ctr": rows(db, f"ORDER BY ctr DESC, total_spend DESC, campaign_id LIMIT {TOP}"),
            "top_cpa": rows(db, f"WHERE cpa IS NOT NULL ORDER BY cpa, total_spend DESC, campaign_id LIMIT {TOP}"),
        }


def rows(db: duckdb.DuckDBPyConnection, tail: str) -> list[dict[str, Any]]:
    found = db.execute(
        f"""SELECT campaign_id, total_impressions, total_clicks, total_spend::VARCHAR AS total_spend,
        total_conversions, round(ctr, 4) AS ctr, round(cpa, 2) AS cpa FROM (FROM totals {tail})"""
    )
    columns = [column[0] for column in found.description]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
