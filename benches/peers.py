"""The same job done with other tools, each in the way that is fastest for it.

compare.py runs one function of this module in a fresh Python process: read FILE, sum per campaign, write the two
top-10 files. A tool does the reading, the summing and the choice of the leading campaigns. Only the exact order and
the exact rounding of these few are done here, so that a million campaigns cost a tool nothing it would not do itself.

The types are those the generated files need: counts of a row fit 64 bits, money has two decimals.

reports.py does the same with the functions at the end, whose input is a report as Google Ads exports it and whose
output the totals of all campaigns.
"""

import os
from fractions import Fraction

TOP = 10
# How many leaders a tool hands over. More than ten, because the tools order by binary floating point: the exact first
# ten are surely among them when the last one is clearly behind the tenth (see `leaders`).
CANDIDATES = 1000

HEADER = "campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA\n"
COUNTS = ["impressions", "clicks", "conversions"]
COLUMNS = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"]
NEEDED = [column for column in COLUMNS if column != "date"]


class Campaign:
    """The totals of one campaign; money in integer cents."""

    def __init__(self, name, impressions, clicks, cents, conversions):
        self.name = name
        self.impressions = int(impressions)
        self.clicks = int(clicks)
        self.cents = int(cents)
        self.conversions = int(conversions)

    def ctr(self):
        return Fraction(self.clicks, self.impressions) if self.impressions else Fraction(0)

    def cpa(self):
        """In cents; only for campaigns with conversions."""
        return Fraction(self.cents, self.conversions)

    def line(self):
        cpa = decimal(self.cpa(), 2) if self.conversions else ""
        name = self.name
        if any(c in name for c in ',"\r\n'):
            name = '"' + name.replace('"', '""') + '"'
        return (
            f"{name},{self.impressions},{self.clicks},{decimal(Fraction(self.cents), 2)},"
            f"{self.conversions},{decimal(self.ctr() * 10**4, 4)},{cpa}\n"
        )


def decimal(scaled, places):
    """Writes scaled / 10**places, rounded half up."""
    units = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return f"{units // 10**places}.{units % 10**places:0{places}d}"


def leaders(candidates, metric, descending):
    """The exact first ten of the candidates a tool found in its approximate order."""
    sign = -1 if descending else 1
    ranked = sorted(candidates, key=lambda c: (sign * metric(c), -c.cents, c.name.encode()))
    if len(ranked) == CANDIDATES:
        tenth, last = metric(ranked[TOP - 1]), metric(ranked[-1])
        if abs(tenth - last) <= tenth * Fraction(1, 10**9):
            raise SystemExit("too many campaigns share the tenth place; raise CANDIDATES in peers.py")
    return ranked[:TOP]


def write_reports(out, by_ctr, by_cpa):
    """Takes rows (name, impressions, clicks, cents, conversions), at most CANDIDATES of each kind."""
    by_ctr = [Campaign(*row) for row in by_ctr]
    by_cpa = [Campaign(*row) for row in by_cpa]
    os.makedirs(out, exist_ok=True)
    for name, ranked in (
        ("top10_ctr.csv", leaders(by_ctr, Campaign.ctr, descending=True)),
        ("top10_cpa.csv", leaders(by_cpa, Campaign.cpa, descending=False)),
    ):
        with open(os.path.join(out, name), "w", encoding="utf-8", newline="") as file:
            file.write(HEADER + "".join(campaign.line() for campaign in ranked))


def sql_text(path):
    return "'" + path.replace("'", "''") + "'"


def duckdb(path, out, threads, tolerant):
    import duckdb

    db = duckdb.connect()
    db.execute(f"SET threads = {threads}")
    db.execute("SET preserve_insertion_order = false")
    # Everything is said outright, so nothing is sniffed. DECIMAL costs DuckDB no more than DOUBLE and is exact.
    types = {
        "campaign_id": "VARCHAR",
        "date": "VARCHAR",
        "impressions": "UBIGINT",
        "clicks": "UBIGINT",
        "spend": "DECIMAL(18,2)",
        "conversions": "UBIGINT",
    }
    options = "auto_detect = false, delim = ',', quote = '\"', escape = '\"', parallel = true"
    where = ""
    if tolerant:
        # As integers, 3.25 would be read as 3 and 0x1F as 31. A seventh column, which only bad rows have, makes
        # rows visible that are too long by an empty field.
        types |= dict.fromkeys(COUNTS, "DECIMAL(18,1)") | {"extra": "VARCHAR"}
        options += ", header = false, skip = 1, ignore_errors = true, null_padding = true, nullstr = '\\N'"
        counts = " AND ".join(f"{column} >= 0 AND {column} % 1 = 0" for column in COUNTS)
        where = f"WHERE extra IS NULL AND trim(campaign_id) <> '' AND spend >= 0 AND {counts}"
    else:
        # The strict reader checks more; well-formed files do not need it.
        options += ", header = true, strict_mode = false, new_line = '\\r\\n'"
    db.execute(
        f"""
        CREATE TEMP TABLE totals AS
        SELECT campaign_id, sum(impressions) AS impressions, sum(clicks) AS clicks,
               CAST(sum(spend) * 100 AS HUGEINT) AS cents, sum(conversions) AS conversions
        FROM read_csv({sql_text(path)}, {options}, columns = {types})
        {where}
        GROUP BY campaign_id
        """
    )
    columns = "campaign_id, impressions, clicks, cents, conversions"
    by_ctr = db.execute(
        f"""SELECT {columns} FROM totals
        ORDER BY if(impressions = 0, 0, clicks::DOUBLE / impressions::DOUBLE) DESC LIMIT {CANDIDATES}"""
    ).fetchall()
    by_cpa = db.execute(
        f"""SELECT {columns} FROM totals WHERE conversions > 0
        ORDER BY cents::DOUBLE / conversions::DOUBLE LIMIT {CANDIDATES}"""
    ).fetchall()
    write_reports(out, by_ctr, by_cpa)


def polars(path, out, threads, tolerant):
    # Read once, when polars is loaded.
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    # Cents as integers, rounded row by row, are exact for two decimals and faster than Decimal.
    cents = (pl.col("spend") * 100).round().cast(pl.Int64)
    types = dict.fromkeys(COLUMNS, pl.String) | dict.fromkeys(COUNTS, pl.Int64) | {"spend": pl.Float64}
    if tolerant:
        # The CSV reader can skip a field it cannot read, but does not tell a row that is too long by an empty field
        # from a good one. Splitting lines does, and takes the same time. What cannot be read becomes null, which the
        # comparisons leave out; the upper limit is there for NaN.
        lines = pl.scan_csv(
            path, has_header=False, skip_rows=1, schema={"line": pl.String}, separator="\x1f", quote_char=None
        )
        rows = (
            lines.select(pl.col("line").str.split_exact(",", 6).struct.rename_fields([*COLUMNS, "extra"]))
            .unnest("line")
            .filter(pl.col("extra").is_null())
            .with_columns(pl.col(column).cast(types[column], strict=False) for column in [*COUNTS, "spend"])
            .filter(
                pl.col("campaign_id").str.strip_chars(" \t") != "",
                pl.all_horizontal(pl.col(column) >= 0 for column in COUNTS),
                pl.col("spend").is_between(0, 1e15),
            )
        )
    else:
        rows = pl.scan_csv(path, infer_schema=False, schema_overrides=types)
    totals = (
        rows.group_by("campaign_id")
        .agg(*(pl.col(column).sum() for column in COUNTS), cents.sum().alias("cents"))
        .select("campaign_id", "impressions", "clicks", "cents", "conversions")
        .collect(engine="streaming")
    )
    ctr = pl.when(pl.col("impressions") == 0).then(0.0).otherwise(pl.col("clicks") / pl.col("impressions"))
    by_ctr = totals.top_k(CANDIDATES, by=ctr)
    by_cpa = totals.filter(pl.col("conversions") > 0).bottom_k(CANDIDATES, by=pl.col("cents") / pl.col("conversions"))
    write_reports(out, by_ctr.rows(), by_cpa.rows())


def chdb(path, out, threads, tolerant):
    import json

    from chdb import session

    options = f"max_threads = {threads}"
    structure = (
        "campaign_id String, date String, impressions UInt64, clicks UInt64, spend Float64, conversions UInt64"
    )
    layout = "CSVWithNames"
    where = ""
    if tolerant:
        # What cannot be read becomes NULL, which is much faster here than an error that skips the row. The seventh
        # column, which only bad rows have, makes rows visible that are too long. Conversions are read as Float64,
        # because an integer at the end of a line is 0 when it is empty.
        layout = "CSV"
        structure = (
            "campaign_id String, date String, impressions Nullable(UInt64), clicks Nullable(UInt64),"
            "spend Nullable(Float64), conversions Nullable(Float64), extra Nullable(String)"
        )
        options += (
            ", input_format_csv_skip_first_lines = 1, input_format_csv_use_default_on_bad_values = 1"
            ", input_format_csv_allow_variable_number_of_columns = 1"
            ", input_format_csv_missing_nullable_as_empty_string = 1"
        )
        where = (
            "WHERE trimBoth(campaign_id) != '' AND row.impressions IS NOT NULL AND row.clicks IS NOT NULL"
            " AND row.spend >= 0 AND row.conversions >= 0 AND row.conversions = floor(row.conversions)"
            " AND extra IS NULL"
        )
    db = session.Session()
    # Float64 is a tenth faster here than Decimal; the totals, rounded to cents, come out right.
    db.query(
        f"""
        CREATE TABLE totals ENGINE = Memory AS
        SELECT campaign_id, sum(impressions) AS impressions, sum(clicks) AS clicks,
               toInt64(round(sum(spend) * 100)) AS cents, sum(conversions) AS conversions
        FROM file({sql_text(os.path.abspath(path))}, {sql_text(layout)}, {sql_text(structure)}) AS row
        {where}
        GROUP BY campaign_id
        SETTINGS {options}
        """
    )

    def rows(tail):
        text = db.query(
            f"""SELECT campaign_id, impressions, clicks, cents, conversions FROM totals {tail}
            LIMIT {CANDIDATES} SETTINGS max_threads = {threads}""",
            "JSONCompactEachRow",
        )
        return [json.loads(line) for line in text.bytes().splitlines()]

    by_ctr = rows("ORDER BY if(impressions = 0, 0, clicks / impressions) DESC")
    by_cpa = rows("WHERE conversions > 0 ORDER BY cents / conversions")
    db.close()
    write_reports(out, by_ctr, by_cpa)


def pandas(path, out, threads, tolerant):
    # pandas reads and sums on one thread, whatever `threads` says.
    import numpy as np
    import pandas as pd

    numbers = [*COUNTS, "spend"]
    # A category is a tenth faster than text for few campaigns and several times slower for many.
    few = pd.read_csv(path, usecols=["campaign_id"], nrows=100_000)["campaign_id"].nunique() < 10_000
    types = {"campaign_id": "category" if few else object, "spend": "float64"} | dict.fromkeys(COUNTS, "int64")
    if tolerant:
        # With number types one bad field ends the job, so they are read as text and converted afterwards.
        types |= dict.fromkeys(numbers, object)

    def merged(parts):
        return pd.concat(parts).groupby(level=0, sort=False).sum()

    parts, waiting = [], 0
    for chunk in pd.read_csv(
        path,
        # When columns are chosen, pandas does not notice that a row has too many.
        usecols=None if tolerant else NEEDED,
        dtype=types,
        chunksize=500_000 if few else 1_000_000,
        na_filter=False,
        engine="c",
        on_bad_lines="skip" if tolerant else "error",
    ):
        if tolerant:
            for column in numbers:
                chunk[column] = pd.to_numeric(chunk[column], errors="coerce")
            good = chunk["campaign_id"].str.strip(" \t") != ""
            for column in numbers:
                good &= chunk[column] >= 0
            for column in COUNTS:
                good &= chunk[column] % 1 == 0
            chunk = chunk[good].astype(dict.fromkeys(COUNTS, "int64"))
        # Cents as integers, rounded row by row, are exact for two decimals.
        chunk["spend"] = np.rint(chunk["spend"].to_numpy() * 100).astype("int64")
        part = chunk.groupby("campaign_id", sort=False, observed=True)[numbers].sum()
        # Categories differ from chunk to chunk; they join faster as plain names.
        part.index = part.index.astype(object)
        parts.append(part)
        waiting += len(part)
        # Merging now and then keeps the memory small; merging every time would be slower.
        if waiting > 4_000_000:
            parts = [merged(parts)]
            waiting = len(parts[0])
    totals = merged(parts)

    def rows(frame):
        return frame.reset_index()[NEEDED].values.tolist()

    ctr = (totals["clicks"] / totals["impressions"]).fillna(0)
    converted = totals[totals["conversions"] > 0]
    cpa = converted["spend"] / converted["conversions"]
    write_reports(
        out, rows(totals.loc[ctr.nlargest(CANDIDATES).index]), rows(converted.loc[cpa.nsmallest(CANDIDATES).index])
    )


PEERS = {"duckdb": duckdb, "polars": polars, "chdb": chdb, "pandas": pandas}

# A report has two lines before its header, which names one column twice.
REPORT_PREAMBLE_LINES = 2
REPORT_COLUMNS = (
    "status,campaign,id,currency,day,impressions,clicks,ctr,currency_of_cost,cost,cpc,conversions,"
    "cost_per_conversion,impression_share"
).split(",")
# What stands in place of an id in rows of totals. Leaving these out of the result is free; leaving the rows out
# before they are summed costs a comparison of every row.
NO_IDS = (None, "", " --")


def write_totals(out, rows):
    """Takes rows (id, impressions, clicks, cents, hundredths of conversions), those of the rows of totals too."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "totals.csv"), "w", encoding="utf-8", newline="") as file:
        for name, *values in rows:
            if name not in NO_IDS:
                file.write(",".join([name, *(str(int(value)) for value in values)]) + "\n")


def duckdb_report(path, out, threads):
    import duckdb

    db = duckdb.connect()
    db.execute(f"SET threads = {threads}")
    db.execute("SET preserve_insertion_order = false")
    # Where commas group digits, DuckDB reads DOUBLE faster than DECIMAL or BIGINT. Whole numbers are exact as such, and
    # so are conversions that are rounded to hundredths row by row. Taking the commas out in SQL is slower by a quarter.
    types = dict.fromkeys(REPORT_COLUMNS, "VARCHAR") | {
        "impressions": "DOUBLE",
        "clicks": "DOUBLE",
        "cost": "DECIMAL(18,2)",
        "conversions": "DOUBLE",
    }
    rows = db.execute(
        f"""
        SELECT id, sum(impressions)::HUGEINT, sum(clicks)::HUGEINT, (sum(cost) * 100)::HUGEINT,
               sum(round(conversions * 100)::BIGINT)
        FROM read_csv({sql_text(path)}, auto_detect = false, delim = ',', quote = '"', escape = '"', parallel = true,
                      strict_mode = false, header = false, skip = {REPORT_PREAMBLE_LINES + 1}, thousands = ',',
                      columns = {types})
        GROUP BY id
        """
    ).fetchall()
    write_totals(out, rows)


def polars_report(path, out, threads):
    # Read once, when polars is loaded.
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    def plain(column):
        return pl.col(column).str.replace_all(",", "", literal=True)

    def hundredths(column):
        return (column * 100).round().cast(pl.Int64)

    rows = (
        pl.scan_csv(path, skip_lines=REPORT_PREAMBLE_LINES, infer_schema=False, schema_overrides={"Cost": pl.Float64})
        .group_by("Campaign ID")
        .agg(
            plain("Impr.").cast(pl.Int64).sum(),
            plain("Clicks").cast(pl.Int64).sum(),
            hundredths(pl.col("Cost")).sum(),
            hundredths(plain("Conversions").cast(pl.Float64)).sum(),
        )
        .collect(engine="streaming")
        .rows()
    )
    write_totals(out, rows)


REPORT_PEERS = {"duckdb": duckdb_report, "polars": polars_report}
