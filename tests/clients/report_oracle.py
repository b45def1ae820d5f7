"""Says what adtally must answer for reports of ad platforms, independently of it.

Usage: report_oracle.py samples DIR
       report_oracle.py cases DIR
       report_oracle.py random SEED COUNT
       report_oracle.py mutated DIR SEED COUNT
       report_oracle.py judge FILE [NAME=VALUE ...]

Prints a line of JSON for each case: its name, its options, its bytes and what is expected of them. `samples` and `cases`
compare with what is known of these files first. `judge` prints what is expected of one file. Written after docs/formats.md
and docs/semantics.md to be plainly right, not to be fast.
"""

import base64
import bisect
import csv
import functools
import json
import os
import re
import sys
from collections import namedtuple
from fractions import Fraction

import report_files

FIELDS = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"]
REQUIRED = ["campaign_id", "impressions", "clicks", "spend", "conversions"]
REASONS = ["malformed_record", "column_count"] + REQUIRED

MAX_RECORD_BYTES = 65536
MAX_ID_BYTES = 256
HEADER_RECORDS = 100
HEADER_BYTES = 65536
MAX_COUNT = 2**63 - 1
MAX_SPEND = 10**15
# Money and conversions are whole numbers of these.
UNIT = 10**12

SPACES = " \t\u00a0\u202f"
THOUSANDS_SPACES = " \u00a0\u202f\u2009"
NO_VALUE = ["", "-", "--", "---"]
CAMPAIGN_NAMES = ["Campaign", "Kampagne", "Campagne", "Campaign name", "CampaignName"]
CURRENCY_COLUMNS = [
    "Currency code",
    "Currency",
    "CurrencyCode",
    "customer.currency_code",
    "Advertiser Currency",
    "Währungscode",
    "Code de la devise",
]
CURRENCY_SIGN = r"(Rs\.|Rs|[A-Z]{0,3}\$|[A-Z]{3}|[€£¥₹₩₽])"

# The columns of each preset, and what else differs from no options at all.
PRESETS = {
    "google_ads": {
        "columns": {
            "campaign_id": ["Campaign ID", "Kampagnen-ID", "ID de la campagne", "Campaign", "Kampagne", "Campagne"],
            "impressions": ["Impr.", "Impressionen"],
            "clicks": ["Clicks", "Klicks", "Clics"],
            "spend": ["Cost", "Kosten", "Coût"],
            "conversions": ["Conversions"],
        },
        "decimal": "auto",
        "thousands": "any",
        "totals": "Total:|Gesamt:",
        "refused_column": "Row Type",
        "checked_totals": ["Total: Campaigns", "Gesamt: Kampagnen", "Total: Campagnes"],
    },
    "google_ads_api": {
        "columns": {
            "campaign_id": ["campaign.id"],
            "impressions": ["metrics.impressions"],
            "clicks": ["metrics.clicks"],
            "spend": ["metrics.cost_micros"],
            "conversions": ["metrics.conversions"],
        },
        "spend_unit": "micros",
    },
    "meta_ads": {
        "columns": {
            "campaign_id": ["Campaign ID", "Campaign name"],
            "impressions": ["Impressions"],
            "clicks": ["Link clicks", "Clicks (all)"],
            "spend": ["Amount spent (*)"],
            "conversions": ["Results"],
        },
        "zero_if_empty": "clicks,conversions",
        "has_single_total": True,
    },
    "microsoft_ads": {
        "columns": {
            "campaign_id": ["CampaignId", "Campaign ID", "CampaignName", "Campaign name"],
            "impressions": ["Impressions", "Impr."],
            "clicks": ["Clicks"],
            "spend": ["Spend"],
            "conversions": ["Conversions", "Conv."],
        },
        "end": "blank_line",
        "id_brackets": "true",
        "totals": "Overall total|Deleted items total",
    },
    "tiktok_ads": {
        "columns": {
            "campaign_id": ["Campaign ID", "Campaign name"],
            "impressions": ["Impressions"],
            "clicks": ["Clicks (destination)", "Clicks (all)"],
            "spend": ["Cost"],
            "conversions": ["Conversions"],
        },
        "totals": "Total of # results",
        "has_single_total": True,
    },
    "linkedin_ads": {
        "columns": {
            "campaign_id": ["Campaign ID", "Campaign Name"],
            "impressions": ["Impressions"],
            "clicks": ["Clicks"],
            "spend": ["Total Spent"],
            "conversions": ["Conversions"],
        },
        "thousands": ",",
        "totals": "Total",
    },
    "amazon_sp": {
        "columns": {
            "campaign_id": ["Campaign ID", "Campaign Name"],
            "impressions": ["Impressions"],
            "clicks": ["Clicks"],
            "spend": ["Spend", "Total cost"],
            "conversions": ["7 Day Total Orders (#)", "14 Day Total Orders (#)", "Purchases"],
        },
        "currency": "strip",
        "thousands": ",",
        "refused_column": "Entity",
    },
    "dv360": {
        "columns": {
            "campaign_id": ["Campaign ID"],
            "impressions": ["Impressions"],
            "clicks": ["Clicks"],
            "spend": ["Revenue (Adv Currency)", "Media Cost (Advertiser Currency)"],
            "conversions": ["Total Conversions"],
        },
        "end": "blank_line",
        "has_single_total": True,
    },
    "cm360": {
        "columns": {
            "campaign_id": ["Campaign ID"],
            "impressions": ["Impressions"],
            "clicks": ["Clicks"],
            "spend": ["Media Cost"],
            "conversions": ["Total Conversions"],
        },
        "totals": "Grand Total:",
        "no_value": ["(not set)"],
        "has_single_total": True,
    },
    "pinterest_ads": {
        "columns": {
            "campaign_id": ["Campaign ID", "Campaign name"],
            "impressions": ["Impressions"],
            "clicks": ["Pin clicks"],
            "spend": ["Spend in account currency"],
            "conversions": ["Total conversions (Checkout)"],
        },
    },
}
EVERY_PRESET = {"header": "find", "delimiter": "auto", "conversions": "decimal", "totals": ""}
NO_PRESET = {
    "has_header": "true",
    "encoding": "utf-8",
    "header": "first",
    "delimiter": ",",
    "decimal": ".",
    "conversions": "whole",
    "currency": "none",
    "spend_unit": "1",
    "zero_if_empty": "none",
    "totals": "none",
    "end": "file",
    "id_brackets": "false",
}
# These were there before reports were read. With no other option nothing may change.
OLD_OPTIONS = ["has_header", "encoding", "delimiter"]
WORDS = {"point": ".", "comma": ",", "apostrophe": "'", "tab": "\t"}


class Fatal(Exception):
    """The whole file is refused."""


# --- Options -----------------------------------------------------------------------------------------------------------------


class Options:
    """The options of a case, with the preset's and the defaults filled in."""

    def __init__(self, given):
        preset = PRESETS[given["format"]] if "format" in given else {}
        base = {**NO_PRESET, **EVERY_PRESET, **preset} if preset else NO_PRESET
        chosen = {**base, **{name: value for name, value in given.items() if name != "columns"}}
        word = {name: WORDS.get(value, value) for name, value in chosen.items() if isinstance(value, str)}
        self.preset = preset
        self.is_report = any(name not in OLD_OPTIONS or value == "auto" for name, value in given.items())
        self.spaces = SPACES if self.is_report else " \t"
        self.encoding = word["encoding"]
        self.has_header = word["has_header"] == "true"
        self.finds_header = word["header"] == "find"
        self.delimiter = word["delimiter"]
        self.decimal = word["decimal"]
        # Other marks than the decimal one prove nothing and harm nothing where the decimal mark is to be found out.
        self.thousands = word.get("thousands", "any" if self.decimal == "auto" else "none")
        self.has_decimal_conversions = word["conversions"] == "decimal"
        self.strips_currency = word["currency"] == "strip"
        self.is_micros = word["spend_unit"] == "micros"
        self.zero_if_empty = [] if word["zero_if_empty"] == "none" else word["zero_if_empty"].split(",")
        self.has_totals = word["totals"] != "none"
        labels = word["totals"].split("|") if self.has_totals else []
        self.labels = [label.strip(SPACES) for label in labels if label.strip(SPACES)]
        self.no_value = NO_VALUE + preset.get("no_value", [])
        self.ends_at_blank_line = word["end"] == "blank_line"
        self.has_brackets = word["id_brackets"] == "true"
        self.columns = {field: [field] for field in FIELDS}
        self.columns.update(preset.get("columns", {}))
        self.columns.update(columns_of(given.get("columns", "")))


def columns_of(text):
    """`FIELD:NAME|NAME;FIELD:NAME` as a dictionary of lists."""
    columns = {}
    field = None
    position = 0
    while position < len(text):
        start = re.compile(r"[;,]?(%s):" % "|".join(FIELDS)).match(text, position)
        if start and (position == 0 or text[position] in ";,"):
            field = start.group(1)
            columns[field] = [""]
            position = start.end()
        elif text[position] == "\\" and text[position + 1 : position + 2] in ["|", ";", "\\"]:
            columns[field][-1] += text[position + 1]
            position += 2
        elif text[position] == "|":
            columns[field].append("")
            position += 1
        else:
            columns[field][-1] += text[position]
            position += 1
    return columns


# --- From bytes to records ---------------------------------------------------------------------------------------------------


def decoded(data, encoding):
    """The text in UTF-8, without its mark."""
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    if data.startswith(b"\xff\xfe"):
        return from_utf16(data[2:], "little")
    if data.startswith(b"\xfe\xff"):
        return from_utf16(data[2:], "big")
    if encoding == "utf-8":
        return data
    if encoding in ("windows-1252", "latin1"):
        return "".join(map(windows_1252, data)).encode()
    return from_utf16(data, {"utf-16le": "little", "utf-16be": "big"}[encoding])


def windows_1252(byte):
    """Five bytes that stand for nothing elsewhere are control characters in the web's table. Latin-1 is read by it, too."""
    return chr(byte) if byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([byte]).decode("cp1252")


def from_utf16(data, order):
    units = [int.from_bytes(data[at : at + 2], order) for at in range(0, len(data) - 1, 2)]
    text = ""
    lead = None
    for unit in units:
        if lead is not None and 0xDC00 <= unit < 0xE000:
            text += chr(0x10000 + ((lead - 0xD800) << 10) + (unit - 0xDC00))
            lead = None
            continue
        if lead is not None:
            text += "\ufffd"
            lead = None
        if 0xD800 <= unit < 0xDC00:
            lead = unit
        elif 0xDC00 <= unit < 0xE000:
            text += "\ufffd"
        else:
            text += chr(unit)
    # What is left over at the end is one character that cannot be decoded.
    if lead is not None or len(data) % 2 == 1:
        text += "\ufffd"
    return text.encode()


# `fields` is None for a malformed record and empty for an empty line.
Record = namedtuple("Record", "start end fields")
LINE_END = re.compile(rb"\r\n|\r|\n")
QUOTED = re.compile(rb'"((?:[^"]|"")*+)"')


def all_records(text, delimiter):
    """Every record and every empty line."""
    position = 0
    while position < len(text):
        line_end = LINE_END.match(text, position)
        if line_end:
            yield Record(position, position, [])
            position = line_end.end()
            continue
        fields, end = read_fields(text, position, delimiter)
        if fields is None or end - position > MAX_RECORD_BYTES:
            line_end = LINE_END.search(text, position + MAX_RECORD_BYTES)
            end = line_end.end() if line_end else len(text)
            yield Record(position, end, None)
            position = end
            continue
        yield Record(position, end, fields)
        line_end = LINE_END.match(text, end)
        position = line_end.end() if line_end else end


def read_fields(text, position, delimiter):
    """The fields of the record that starts here and where its line ends; no fields when a quote is not closed."""
    unquoted = re.compile(rb"[^\r\n%s]*" % re.escape(delimiter.encode()))
    fields = []
    while True:
        field = b""
        if text[position : position + 1] == b'"':
            quoted = QUOTED.match(text, position)
            if quoted is None:
                return None, len(text)
            field = quoted.group(1).replace(b'""', b'"')
            position = quoted.end()
        rest = unquoted.match(text, position)
        field += rest.group()
        position = rest.end()
        # Bytes that are not UTF-8 become surrogates, which no text has.
        fields.append(field.decode("utf-8", "surrogateescape"))
        if text[position : position + 1] != delimiter.encode():
            return fields, position
        position += 1


def is_blank(record):
    """Such a line is no record, wherever it stands."""
    if record.fields is None:
        return False
    return len(record.fields) == 0 or (len(record.fields) == 1 and record.fields[0].strip(" \t") == "")


def is_blank_or_empty(record):
    """What is blank where a blank line ends the data: cells without contents are no record either."""
    return record.fields is not None and all(field.strip(SPACES) == "" for field in record.fields)


# --- The header --------------------------------------------------------------------------------------------------------------

# `columns` has the position and the name of each required field.
Table = namedtuple("Table", "delimiter records header_index names columns")


def find_table(text, options):
    """Where the table starts, and which column is which."""
    is_auto = options.delimiter == "auto"
    delimiters = ["\t", ",", ";"] if is_auto else [options.delimiter]
    records_of = {delimiter: list(all_records(text, delimiter)) for delimiter in delimiters}
    if all(is_blank(record) for records in records_of.values() for record in records):
        raise Fatal("empty_input")
    if not options.has_header:
        columns = {field: (FIELDS.index(field), field) for field in REQUIRED}
        return Table(options.delimiter, records_of[options.delimiter], -1, FIELDS, columns)
    found = {delimiter: header_index(records, options) for delimiter, records in records_of.items()}
    fitting = [delimiter for delimiter in delimiters if found[delimiter] is not None]
    if not fitting:
        raise Fatal("missing_columns")
    if len(fitting) > 1:
        raise Fatal("ambiguous_delimiter")
    records = records_of[fitting[0]]
    index = found[fitting[0]]
    names = records[index].fields
    columns = {field: winning_column(names, field, options) for field in REQUIRED}
    if any(len(columns[field]) > 1 for field in REQUIRED):
        raise Fatal("duplicate_columns")
    refused = options.preset.get("refused_column")
    if refused and any(is_same_name(name, refused, options) for name in names):
        raise Fatal("unsupported_report")
    return Table(fitting[0], records, index, names, {field: columns[field][0] for field in REQUIRED})


def header_index(records, options):
    """Which record is the header, if one is."""
    candidates = [index for index, record in enumerate(records) if not is_blank(record)]
    if options.finds_header:
        candidates = [index for index in candidates[:HEADER_RECORDS] if records[index].end <= HEADER_BYTES]
    else:
        candidates = candidates[:1]
    for index in candidates:
        names = records[index].fields
        if names is not None and all(winning_column(names, field, options) for field in REQUIRED):
            return index
    return None


def winning_column(names, field, options):
    """Position and name of all columns that have the first of the field's names that is there at all."""
    for wanted in options.columns[field]:
        having = [(at, name.strip(SPACES)) for at, name in enumerate(names) if is_same_name(name, wanted, options)]
        if having:
            return having
    return []


def is_same_name(name, wanted, options):
    return name_pattern(wanted).fullmatch(normal_name(name, options.spaces)) is not None


@functools.cache
def name_pattern(wanted):
    """`(*)` stands for a currency's code of three letters."""
    parts = normal_name(wanted, SPACES).split("(*)")
    return re.compile(r"\([a-z]{3}\)".join(re.escape(part) for part in parts))


def normal_name(name, spaces):
    """Two names that are the same are the same text in this form."""
    name = name.strip(spaces)
    if spaces == SPACES:
        name = name.replace("\u00a0", " ").replace("\u202f", " ")
    return re.sub("[A-Z]", lambda letter: letter.group().lower(), name)


# --- Numbers -----------------------------------------------------------------------------------------------------------------


@functools.cache
def number_pattern(decimal, thousands):
    marks = {"none": "", "space": THOUSANDS_SPACES, "any": ",.'" + THOUSANDS_SPACES}.get(thousands, thousands)
    grouped = [r"[1-9][0-9]{0,2}(?:%s[0-9]{3})+" % re.escape(mark) for mark in marks if mark != decimal]
    whole = "|".join(["[0-9]+"] + grouped)
    mark = re.escape(decimal)
    return re.compile(
        r"(?P<sign>[+-]?)(?:(?P<whole>%s)(?:%s(?P<part>[0-9]*))?|%s(?P<only_part>[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]+))?"
        % (whole, mark, mark)
    )


def number(text, decimal, thousands):
    """The exact value, or None for what is no number or a negative one."""
    match = number_pattern(decimal, thousands).fullmatch(text)
    if match is None:
        return None
    whole = re.sub("[^0-9]", "", match["whole"] or "")
    part = match["part"] or match["only_part"] or ""
    value = power_of_ten(int(whole + part), int(match["exponent"] or "0") - len(part))
    return None if match["sign"] == "-" and value != 0 else value


def power_of_ten(digits, exponent):
    """`digits` times ten to the `exponent`. What is beyond every limit by far need not be exact."""
    if digits == 0:
        return Fraction(0)
    size = len(str(digits)) + exponent
    if size > 60:
        return Fraction(10**60)
    if size < -60:
        return Fraction(1, 10**60)
    return digits * Fraction(10) ** exponent


def plain(units):
    """A number of units as a decimal, without trailing zeros."""
    text = "%d.%012d" % divmod(units, UNIT)
    return text.rstrip("0").rstrip(".")


def without_currency(cell):
    """The currency's sign or code, if there is one, and the rest."""
    before = re.compile(CURRENCY_SIGN).match(cell)
    if before:
        return before.group(), cell[before.end() :].lstrip(SPACES)
    behind = re.compile(r"(.*?)[%s]*%s" % (SPACES, CURRENCY_SIGN), re.DOTALL).fullmatch(cell)
    if behind:
        return behind.group(2), behind.group(1)
    return None, cell


# --- Rows --------------------------------------------------------------------------------------------------------------------

Numbers = namedtuple("Numbers", "impressions clicks spend conversions")


class Reading:
    """Reads one file."""

    def __init__(self, options, data):
        self.options = options
        self.text = decoded(data, options.encoding)
        self.line_starts = [0] + [line_end.end() for line_end in LINE_END.finditer(self.text)]
        self.table = find_table(self.text, options)
        self.position_of = {field: column[0] for field, column in self.table.columns.items()}
        self.currency_columns = [
            at
            for at, name in enumerate(self.table.names)
            if self.options.is_report and any(is_same_name(name, known, options) for known in CURRENCY_COLUMNS)
        ]
        self.decimal = None if options.decimal == "auto" else options.decimal
        self.currencies = set()
        self.signs = set()
        self.rows_read = 0
        self.rows_footer = 0
        self.rejects = []
        self.totals = []
        self.campaigns = {}

    def read(self):
        before = self.table.records[: max(self.table.header_index, 0)]
        self.rows_preamble = sum(not is_blank(record) for record in before)
        has_begun = has_ended = False
        for record in self.table.records[self.table.header_index + 1 :]:
            if self.options.ends_at_blank_line and is_blank_or_empty(record):
                has_ended = has_begun
            elif is_blank(record):
                pass
            elif has_ended:
                self.rows_footer += 1
            else:
                has_begun = True
                self.judge(record)
        return self.answer()

    def judge(self, record):
        """Counts a record, as a total, as a row or as one that is skipped."""
        cells = record.fields and [cell.strip(self.options.spaces) for cell in record.fields]
        if cells and len(cells) == len(self.table.names) and self.is_total(cells):
            self.totals.append((self.line(record), cells, self.read_total(cells)))
            return
        self.rows_read += 1
        reason = self.reason_to_skip(cells)
        if reason:
            self.rejects.append([self.line(record), record.start, reason])

    def line(self, record):
        return bisect.bisect_right(self.line_starts, record.start)

    def cell(self, cells, field):
        return cells[self.position_of[field]]

    def is_total(self, cells):
        if not self.options.has_totals:
            return False
        if self.cell(cells, "campaign_id") in self.options.no_value:
            return True
        first = first_contents(cells)
        is_id = first == self.position_of["campaign_id"]
        return is_id and any(is_labelled(cells[first], label) for label in self.options.labels)

    def reason_to_skip(self, cells):
        """Adds the row up, or says why not."""
        if cells is None:
            return "malformed_record"
        if len(cells) != len(self.table.names):
            return "column_count"
        self.find_decimal_mark(cells)
        campaign = self.campaign(self.cell(cells, "campaign_id"))
        if campaign is None:
            return "campaign_id"
        numbers = self.numbers(cells)
        for field in Numbers._fields:
            if getattr(numbers, field) is None:
                return field
        self.find_currency(cells)
        before = self.campaigns.get(campaign, Numbers(0, 0, 0, 0))
        self.campaigns[campaign] = Numbers(*map(sum, zip(before, numbers)))
        return None

    def find_decimal_mark(self, cells):
        if self.options.decimal != "auto":
            return
        if self.decimal is None:
            self.decimal = self.shown_mark(cells)
            if self.decimal is None:
                raise Fatal("undecided_decimal_mark")
        elif self.spend(cells) is None:
            other = {".": ",", ",": "."}[self.decimal]
            value = number(self.spend_text(cells), other, "any")
            if value is not None and value <= MAX_SPEND:
                raise Fatal("mixed_decimal_marks")

    def shown_mark(self, cells):
        """The decimal mark that the row's spend shows."""
        end = re.search(r"([.,])[0-9]{1,2}\Z", self.spend_text(cells))
        return end.group(1) if end else None

    def read_total(self, cells):
        """The numbers of a totals row, as far as they can be read: before the first data row with the mark its spend shows."""
        decided = self.decimal
        self.decimal = decided or self.shown_mark(cells)
        names = Numbers._fields
        numbers = self.numbers(cells) if self.decimal else Numbers(None, None, None, None)
        self.decimal = decided
        return Numbers(*(None if self.cell(cells, name) == "" else value for name, value in zip(names, numbers)))

    def find_currency(self, cells):
        self.currencies |= {cells[at] for at in self.currency_columns if cells[at] not in NO_VALUE}
        if self.options.strips_currency:
            sign, _ = without_currency(self.cell(cells, "spend"))
            self.signs |= {sign} - {None}
        if len(self.currencies) > 1 or len(self.signs) > 1:
            raise Fatal("mixed_currencies")

    def campaign(self, cell):
        """The campaign's id, if it can be one."""
        if self.options.has_brackets and re.fullmatch(r"\[[0-9]+\]", cell):
            cell = cell[1:-1]
        bytes_of_id = cell.encode("utf-8", "surrogateescape")
        is_utf8 = not any("\udc80" <= character <= "\udcff" for character in cell)
        is_damaged = self.options.preset and re.fullmatch(r"[0-9]([.,][0-9]+[eE]\+?|[eE]\+)[0-9]+", cell)
        if cell == "" or len(bytes_of_id) > MAX_ID_BYTES or not is_utf8 or is_damaged:
            return None
        return cell

    def numbers(self, cells):
        """The row's numbers; None for each that is not acceptable."""
        conversions = self.decimal_conversions if self.options.has_decimal_conversions else self.whole_conversions
        counts = [self.count(cells, field) for field in ("impressions", "clicks")]
        return Numbers(*counts, self.spend(cells), conversions(cells))

    def value(self, cells, field):
        cell = self.spend_text(cells) if field == "spend" else self.cell(cells, field)
        if cell == "" and field in self.options.zero_if_empty:
            return Fraction(0)
        return number(cell, self.decimal, self.options.thousands)

    def spend_text(self, cells):
        cell = self.cell(cells, "spend")
        return without_currency(cell)[1] if self.options.strips_currency else cell

    def count(self, cells, field):
        value = self.value(cells, field)
        return int(value) if value is not None and value.denominator == 1 and value <= MAX_COUNT else None

    def spend(self, cells):
        value = self.value(cells, "spend")
        if value is None:
            return None
        if self.options.is_micros:
            if value.denominator != 1:
                return None
            value /= 10**6
        # Rounded half to even.
        return round(value * UNIT) if value <= MAX_SPEND else None

    def whole_conversions(self, cells):
        count = self.count(cells, "conversions")
        return None if count is None else count * UNIT

    def decimal_conversions(self, cells):
        value = self.value(cells, "conversions")
        if value is None or (value * UNIT).denominator != 1 or value // 1 > MAX_COUNT:
            return None
        return int(value * UNIT)

    # --- The answer

    def answer(self):
        skipped = {reason: sum(reject[2] == reason for reject in self.rejects) for reason in REASONS}
        columns = {field: name for field, (_, name) in self.table.columns.items()} if self.options.has_header else {}
        key = normal_name(self.table.columns["campaign_id"][1], SPACES)
        is_name = key in [normal_name(name, SPACES) for name in CAMPAIGN_NAMES]
        return {
            "rows_read": self.rows_read,
            "rows_skipped": len(self.rejects),
            "rows_preamble": self.rows_preamble,
            "rows_total": len(self.totals),
            "rows_footer": self.rows_footer,
            "skipped": {reason: count for reason, count in skipped.items() if count},
            "rejects": self.rejects[:100],
            "total_lines": [line for line, _, _ in self.totals[:10]],
            "total_spend": self.total_spend(),
            "columns": columns,
            "keyed_by": "name" if is_name else "id",
            "decimal": self.decimal,
            "delimiter": self.table.delimiter,
            "totals_check": self.totals_check(),
            "campaigns": {
                campaign: [sums.impressions, sums.clicks, plain(sums.spend), plain(sums.conversions)]
                for campaign, sums in sorted(self.campaigns.items())
            },
        }

    def total_spend(self):
        """Of all totals rows whose spend can be read."""
        return plain(sum(numbers.spend for _, _, numbers in self.totals if numbers.spend is not None))

    def totals_check(self):
        """Compares the totals row that stands for these very rows with their sums."""
        labels = self.options.preset.get("checked_totals", [])
        totals = [(cells, numbers) for _, cells, numbers in self.totals if has_whole_label(cells, labels)]
        if self.options.preset.get("has_single_total") and len(self.totals) == 1:
            totals = [self.totals[0][1:]]
        if not totals or self.decimal is None:
            return None
        cells, total = totals[0]
        has_unreadable = any(
            value is None and self.cell(cells, name) not in NO_VALUE for name, value in zip(Numbers._fields, total)
        )
        if has_unreadable:
            return "different"
        sums = Numbers(*map(sum, zip(Numbers(0, 0, 0, 0), *self.campaigns.values())))
        allowed = (self.rows_read - len(self.rejects)) * UNIT * 5 // 1000
        tolerance = Numbers(0, 0, allowed, allowed if self.options.has_decimal_conversions else 0)
        compared = [
            abs(told - counted) <= distance
            for told, counted, distance in zip(total, sums, tolerance)
            if told is not None
        ]
        if not compared:
            return None
        return "equal" if all(compared) else "different"


def first_contents(cells):
    """The first cell that is not empty."""
    return next((at for at, cell in enumerate(cells) if cell != ""), None)


@functools.cache
def label_pattern(label):
    """`#` stands for a number, space before a colon for nothing; a label that ends in a colon goes on in any way."""
    known = {"#": "[0-9]+(?:[.,' \u00a0\u202f][0-9]{3})*", ":": "[%s]*:" % SPACES}
    parts = re.split("(#|:)", re.sub("[%s]+:" % SPACES, ":", label))
    pattern = "".join(known.get(part, re.escape(part)) for part in parts)
    return re.compile(pattern + ("(?s:.*)" if label.endswith(":") else ""))


def is_labelled(cell, label):
    return label_pattern(label).fullmatch(cell) is not None


def has_whole_label(cells, labels):
    first = first_contents(cells)
    return first is not None and any(is_labelled(cells[first], label) for label in labels)


def judge(options, data):
    """What is expected of a file."""
    try:
        return Reading(Options(options), data).read()
    except Fatal as fatal:
        return {"fatal": str(fatal)}


# --- Commands ----------------------------------------------------------------------------------------------------------------


def print_case(name, options, data, expected):
    data = base64.b64encode(data).decode()
    print(json.dumps({"name": name, "options": options, "data": data, "expected": expected}))


def check_sample(name, expected, known):
    """Compares with the totals that come with a sample."""
    campaigns = {
        campaign: [sums["impressions"], sums["clicks"], sums["spend"], sums["conversions"]]
        for campaign, sums in known["campaigns"].items()
    }
    lines_of = {reason: [row["line"] for row in known["skipped"] if row["reason"] == reason] for reason in ("total", "footer")}
    pairs = {
        "campaigns": (expected.get("campaigns"), campaigns),
        "unique": (len(expected.get("campaigns", {})), known["unique_campaigns"]),
        "counted": (expected.get("rows_read", 0) - expected.get("rows_skipped", 0), known["rows_counted"]),
        "totals": (expected.get("total_lines"), lines_of["total"]),
        "footer": (expected.get("rows_footer"), len(lines_of["footer"])),
        "skipped": (expected.get("rows_skipped"), len(known["skipped"]) - sum(map(len, lines_of.values()))),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            sys.exit("%s: %s should be %s and is %s" % (name, what, theirs, ours))


def print_samples(directory):
    for name, known, data in report_files.samples(directory):
        for variant, options in report_files.sample_options(known):
            expected = judge(options, data)
            check_sample("%s, %s" % (name, variant), expected, known["expected"])
            print_case("%s, %s" % (name, variant), options, data, expected)


def print_cases(directory):
    """The cases of docs/semantics.md, which need no option for reports."""
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name, "case.json"), encoding="utf-8") as file:
            known = json.load(file)
        with open(os.path.join(directory, name, "input.csv"), "rb") as file:
            data = file.read()
        options = {"delimiter": known["delimiter"], "encoding": known["encoding"]}
        if not known["has_header"]:
            options["has_header"] = "false"
        expected = judge(options, data)
        check_case(name, expected, known, os.path.join(directory, name))
        print_case(name, options, data, expected)


def check_case(name, expected, known, directory):
    if "error" in known:
        if expected.get("fatal") != known["error"]:
            sys.exit("%s: should be %s" % (name, known["error"]))
        return
    stats = known["stats"]
    ours = [expected[key] for key in ("rows_read", "rows_skipped", "skipped")]
    theirs = [stats["rows_read"], stats["rows_skipped"], {reason: count for reason, count in stats["skipped"].items() if count}]
    with open(os.path.join(directory, "rejects.csv"), encoding="utf-8", newline="") as file:
        theirs.append([[int(row["line"]), int(row["byte_offset"]), row["reason"]] for row in csv.DictReader(file)])
    ours.append(expected["rejects"])
    with open(os.path.join(directory, "campaigns.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = ["total_impressions", "total_clicks", "total_conversions"]
    theirs.append({row["campaign_id"]: [int(row[name]) for name in counts] for row in rows})
    ours.append({campaign: [sums[0], sums[1], int(sums[3])] for campaign, sums in expected["campaigns"].items()})
    if ours != theirs:
        sys.exit("%s: should be %s and is %s" % (name, theirs, ours))


def main():
    sys.set_int_max_str_digits(0)
    command, *arguments = sys.argv[1:]
    if command == "samples":
        print_samples(arguments[0])
    elif command == "cases":
        print_cases(arguments[0])
    elif command == "random":
        for name, options, data in report_files.random_cases(arguments[0], int(arguments[1])):
            print_case(name, options, data, judge(options, data))
    elif command == "mutated":
        for name, options, data in report_files.mutated_cases(arguments[0], arguments[1], int(arguments[2])):
            print_case(name, options, data, judge(options, data))
    elif command == "judge":
        with open(arguments[0], "rb") as file:
            data = file.read()
        options = dict(argument.split("=", 1) for argument in arguments[1:])
        print_case(os.path.basename(arguments[0]), options, data, judge(options, data))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
