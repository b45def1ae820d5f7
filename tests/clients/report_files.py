"""Makes reports of ad platforms for report_oracle.py: samples, random ones, and samples that something was done to.

Nothing here knows what a file means. The same seed gives the same files.
"""

import csv
import glob
import io
import json
import os
import random
import re
from collections import namedtuple

LINE_ENDS = ["\n", "\n", "\n", "\r\n", "\r\n", "\r"]
# Decimal mark and thousands mark.
STYLES = [(".", ""), (".", ","), (",", "."), (",", "\u00a0"), (",", "\u202f"), (".", "'"), (",", " "), (".", "\u2009"), (",", "")]
MARK_OPTIONS = {"": "none", "\u00a0": "space", "\u202f": "space", " ": "space", "\u2009": "space"}
MARK_WORDS = {",": "comma", ".": "point", "'": "apostrophe"}
SIGNS = ["$", "€", "£", "¥", "₹", "₩", "₽", "Rs.", "CA$", "MX$", "EUR", "USD"]

# Columns of reports: name and kind. Several names are different versions of one platform's report.
REPORTS = {
    "google_ads": [
        "Campaign status:text|Campaign:name|Campaign ID:id|Currency code:currency|Day:date|Impr.:impressions|Clicks:clicks|"
        "CTR:ratio|Currency code:currency|Cost:spend|Avg. CPC:number|Conversions:conversions|Cost / conv.:number|"
        "All conv.:number",
        "Kampagne:name|Kampagnen-ID:id|Kampagnentyp:text|Tag:date|Währungscode:currency|Impressionen:impressions|"
        "Klicks:clicks|Kosten:spend|Conversions:conversions|CTR:ratio",
        "État de la campagne:text|Campagne:name|ID de la campagne:id|Jour:date|Code de la devise:currency|"
        "Impr.:impressions|Clics:clicks|Coût:spend|Conversions:conversions",
        "Campaign:name|Interactions:number|Impr.:impressions|Clicks:clicks|Cost:spend|Conversions:conversions",
    ],
    "google_ads_api": [
        "campaign.id:id|campaign.name:name|customer.currency_code:currency|segments.date:date|"
        "metrics.impressions:impressions|metrics.clicks:clicks|metrics.cost_micros:micros|metrics.conversions:conversions",
    ],
    "meta_ads": [
        "Campaign name:name|Campaign ID:id|Day:date|Currency:currency|Reach:number|Impressions:impressions|Frequency:number|"
        "Amount spent (EUR):spend|Clicks (all):number|Link clicks:clicks|Results:conversions|Result indicator:text|"
        "Reporting starts:date|Reporting ends:date",
        "Campaign name:name|Impressions:impressions|Clicks (all):clicks|Amount spent (usd):spend|Results:conversions",
    ],
    "microsoft_ads": [
        "TimePeriod:date|AccountName:text|CampaignName:name|CampaignId:id|CurrencyCode:currency|Impressions:impressions|"
        "Clicks:clicks|Spend:spend|Conversions:conversions",
        "Campaign name:name|Campaign ID:bracket_id|Gregorian date:date|Impr.:impressions|Clicks:clicks|Spend:spend|"
        "Conv.:conversions",
    ],
    "tiktok_ads": [
        "Campaign name:name|Campaign ID:id|By Day:date|Currency:currency|Cost:spend|Impressions:impressions|"
        "Clicks (destination):clicks|Clicks (all):number|Conversions:conversions",
    ],
    "linkedin_ads": [
        "Start Date (in UTC):date|Campaign Group ID:number|Campaign ID:id|Campaign Name:name|Impressions:impressions|"
        "Clicks:clicks|Total Spent:spend|Conversions:conversions",
    ],
    "amazon_sp": [
        "Date:date|Currency:currency|Campaign Name :name|Last Year Impressions:number|Impressions:impressions|"
        "Last Year Clicks:number|Clicks:clicks|Spend:money|7 Day Total Orders (#):conversions|14 Day Total Orders (#):number",
        "Campaign Name:name|Impressions:impressions|Clicks:clicks|Total cost:money|Purchases:conversions",
    ],
    "dv360": [
        "Date:date|Campaign:name|Campaign ID:id|Insertion Order ID:number|Advertiser Currency:currency|"
        "Impressions:impressions|Clicks:clicks|Total Conversions:conversions|Revenue (Adv Currency):spend",
        "Campaign ID:id|Impressions:impressions|Clicks:clicks|Total Conversions:conversions|"
        "Media Cost (Advertiser Currency):spend",
    ],
    "cm360": [
        "Campaign:name|Campaign ID:id|Date:date|Impressions:impressions|Clicks:clicks|Media Cost:spend|"
        "Total Conversions:conversions",
    ],
    "pinterest_ads": [
        "Campaign name:name|Date:date|Impressions:impressions|Pin clicks:clicks|Outbound clicks:number|"
        "Spend in account currency:spend|Total conversions (Checkout):conversions",
    ],
}
OWN_REPORT = "campaign_id:id|date:date|impressions:impressions|clicks:clicks|spend:spend|conversions:conversions"
KEYED_BY_ID = ["google_ads_api", "dv360", "cm360"]
TOTAL_LABELS = {
    "google_ads": ["Total: Campaigns", "Total: Account", "Total : Campagnes", "Gesamt: Kampagnen", "Gesamt: Konto", "Total\u00a0: Compte"],
    "meta_ads": [""],
    "microsoft_ads": ["Overall total", "Deleted items total"],
    "tiktok_ads": ["Total of 12 results", "Total of 1,234 results"],
    "linkedin_ads": ["Total"],
    "dv360": [""],
    "cm360": ["Grand Total:", "Grand Total :"],
}
PREAMBLES = [
    "Campaign report",
    '"September 1, 2026 - September 5, 2026"',
    "8. Januar 2026 - 6. Februar 2026",
    "All time",
    "Kampagnen KW 36;;;;;",
    "Report\tFields",
    "Clicks,Cost,Conversions",
    'A 5" screen, "quoted"',
    '"Two lines\nof one title"',
    "sep=,",
]
FOOTERS = [
    '"©2026 Microsoft Corporation. All rights reserved. "',
    "Report Time:,2026/09/07 08:00 GMT",
    "Group By:,Campaign ID",
    "Filter by Advertiser ID:,Example (630001),,,",
    'MRC Accredited Metrics,"Not closed',
]
NAMES = [
    "Brand",
    "Total Wine & Co",
    "Total: Refresh 2026",
    "Gesamt: Marke",
    "Totals",
    "Küchen; Angebote",
    'Sale "Autumn" | UK',
    "Boxes, office",
    "Öfen – Süd",
    "春のセール",
    "lamp 🌿",
    " padded ",
    "tab\there",
    "two\nlines",
    "brand",
    "-",
    "'quoted'",
    '"',
]
ODD_IDS = ["1.20211E+17", "1,2E+17", "1E+5", "12E+5", "1.2e+17", "[123]", "[12a]", "[]", "\udcff5", "-5", " --", "---", "(not set)"]
ODD_IDS += ["", "\u00a0", "--\u202f", "0", "x" * 256, "x" * 257, "é" * 128, "é" * 129, "Total:", "Total", "Overall total", "N/A"]
ODD_NUMBERS = (
    "|0| 0 |-0|-1|+7|1e3|1.5e1|1,5e1|25E-2|1e999999999999|1e-999999999999|0e999999999999|5.|.5|,5|5,|.|,|+|e5|1e|--|-| --|---|<5|< 1000|"
    "N/A|Unknown|1.000|1,000|1.234|1,234|1.234,5|1,234.5|1.234.567|1,234,567|1,234.567|1.23|1,23|1,2345|12,34,567|0,123|1234,567|,123|"
    "1 234|1\u00a0234|1\u202f234|1\u2009234|1'234|1’234|1 234.50|1\u00a0234,50|1.000.000,00|1,000,000.00|5\u00a0|\u202f5|\t5|"
    "9223372036854775807|9223372036854775808|9,223,372,036,854,775,807|9223372036854775807.5|1000000000000000|1000000000000000.0|"
    "1000000000000000.0000000000001|1000000000000001|0.0000000000005|0.0000000000015|0.0000000000025|1.123456789012|1.1234567890123|"
    "1.1230000000000000|0,123456789012|1.2E+17|1E+15|$5|$5.00|5 €|EUR 5.25|5.25EUR|CA$5.5|Rs.201.68|Rs. 5.50|Rs.5|.5Rs.|$ 5.00|$\u00a07.50|"
    "-$5|$-5|$-0|$$5|$5 USD|ABCD$5|eur 5|5%|0x10|١٢|1_000|1 2|∞|nan|\udcff5"
).split("|")

Column = namedtuple("Column", "name kind")


class Report:
    """A report in the making. Cells are texts; quotes come when it is written."""

    def __init__(self, rng):
        self.rng = rng
        self.options = {}
        self.columns = []
        self.preamble = []
        self.rows = []
        self.footer = []
        self.decimal, self.thousands = ".", ""
        self.delimiter = ","
        self.line_end = rng.choice(LINE_ENDS)
        self.sign = ""

    def chance(self, percent):
        return self.rng.random() * 100 < percent

    def grouped(self, digits):
        if not self.thousands or self.chance(5):
            return digits
        first = len(digits) % 3 or 3
        return self.thousands.join([digits[:first]] + [digits[at : at + 3] for at in range(first, len(digits), 3)])

    def decimal_text(self, value, places, is_grouped=True):
        """A whole number of the last place, written with so many places."""
        digits = str(value).rjust(places + 1, "0")
        whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
        whole = self.grouped(whole) if is_grouped else whole
        return whole + self.decimal + part if places else whole


def position_of(report, kinds):
    return next((at for at, column in enumerate(report.columns) if column.kind in kinds), None)


# --- Random reports ----------------------------------------------------------------------------------------------------------


def random_cases(seed, count):
    for number in range(count):
        rng = random.Random("random %s %d" % (seed, number))
        case = None
        while case is None or is_archive(case[1]):
            case = random_case(rng)
        yield "random %s/%d" % (seed, number), case[0], case[1]


def is_archive(data):
    """Such a file would be unpacked or refused for what it is."""
    return data[:2] in (b"PK", b"\x1f\x8b") or data[:4] == b"\x28\xb5\x2f\xfd" or data[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda")


def random_case(rng):
    report = Report(rng)
    preset = rng.choice(list(REPORTS) + ["google_ads"] * 4 + ["meta_ads", "microsoft_ads"])
    way = rng.choices(["preset", "explicit", "old"], [70, 25, 5])[0]
    if way == "old":
        choose_old(report)
    else:
        report.columns = columns_of(rng.choice(REPORTS[preset]))
        choose_columns(report, preset)
        if way == "preset":
            choose_preset(report, preset)
        else:
            choose_explicit(report, preset)
    add_rows(report, preset if way == "preset" else None)
    if way != "old":
        add_totals(report, preset)
        add_surroundings(report)
    damage(report)
    return written(report)


def columns_of(text):
    return [Column(*column.rsplit(":", 1)) for column in text.split("|")]


def choose_columns(report, preset):
    """Leaves columns out and moves them, as users do."""
    spared = ["id", "bracket_id", "name", "impressions", "clicks", "spend", "micros", "money", "conversions"]
    report.columns = [column for column in report.columns if column.kind in spared or not report.chance(25)]
    kinds = [column.kind for column in report.columns]
    if "name" in kinds and len(set(kinds) & {"id", "bracket_id"}) == 1:
        if preset not in KEYED_BY_ID and report.chance(30):
            report.columns = [column for column in report.columns if column.kind not in ("id", "bracket_id")]
        elif report.chance(30):
            report.columns = [column for column in report.columns if column.kind != "name"]
    if report.chance(30):
        report.rng.shuffle(report.columns)


def choose_preset(report, preset):
    report.options["format"] = preset
    report.delimiter = report.rng.choice(",,,,;\t")
    if preset == "google_ads":
        report.decimal, report.thousands = report.rng.choice(STYLES)
        if report.chance(20):
            give_style(report)
    elif preset in ("linkedin_ads", "amazon_sp"):
        report.thousands = report.rng.choice([",", ",", ""])
    elif report.chance(15):
        report.decimal, report.thousands = report.rng.choice(STYLES)
        give_style(report)
    if preset == "amazon_sp" and report.chance(80):
        report.sign = report.rng.choice(SIGNS)
    # Any option beside the preset wins.
    for name, values in [
        ("totals", ["none", "", "Total:|Gesamt:", "Sum of # rows|Total"]),
        ("zero_if_empty", ["none", "clicks,conversions", "clicks"]),
        ("end", ["file", "blank_line"]),
        ("id_brackets", ["true", "false"]),
        ("conversions", ["whole", "decimal"]),
        ("header", ["first", "find"]),
        ("currency", ["strip", "none"]),
    ]:
        if report.chance(5):
            report.options[name] = report.rng.choice(values)
    if report.chance(8):
        give_delimiter(report)
    if report.chance(5):
        others = [column.name for column in report.columns if column.kind == "number"]
        if others:
            report.options["columns"] = "conversions:" + escaped(report.rng.choice(others))


def choose_explicit(report, preset):
    options = report.options
    report.delimiter = report.rng.choice(",,;\t|")
    report.decimal, report.thousands = report.rng.choice(STYLES)
    if report.chance(10):
        at = report.rng.randrange(len(report.columns))
        odd = report.rng.choice(["One | two; three", "Back\\slash\\", "Name: x, clicks", "Coût d’achat", "A,B", "(*)", "x (*) y"])
        report.columns[at] = Column(odd, report.columns[at].kind)
    if report.chance(85):
        fields = {}
        for column in report.columns:
            fields.setdefault(field_of(column.kind), []).append(column)
        options["columns"] = columns_option(report, fields)
    else:
        report.columns = columns_of(OWN_REPORT)
    kinds = [column.kind for column in report.columns]
    if "micros" in kinds:
        options["spend_unit"] = "micros"
    if "money" in kinds or report.chance(15):
        options["currency"] = "strip"
        report.sign = report.rng.choice(SIGNS + [""])
    give_style(report)
    give_delimiter(report)
    if "columns" not in options and report.chance(40):
        options["has_header"] = "false"
    else:
        if report.chance(70):
            options["header"] = report.rng.choice(["find", "find", "first"])
        if report.delimiter in ",;\t" and report.chance(40):
            options["delimiter"] = "auto"
    for name, values, percent in [
        ("conversions", ["decimal", "decimal", "whole"], 80),
        ("totals", ["", "none", "Total:|Gesamt:", "Total", "Overall total|Total of # results", "Grand Total:"], 60),
        ("zero_if_empty", ["clicks,conversions", "conversions", "none"], 30),
        ("end", ["blank_line", "file"], 30),
        ("id_brackets", ["true"], 20),
    ]:
        if report.chance(percent):
            options[name] = report.rng.choice(values)


def choose_old(report):
    """No option that reports need: nothing may be different from what it was."""
    report.columns = columns_of(OWN_REPORT)
    report.delimiter = report.rng.choice(",,,;\t")
    if report.delimiter != ",":
        give_delimiter(report)
    if report.chance(30):
        report.options["has_header"] = "false"
    elif report.chance(50):
        report.rng.shuffle(report.columns)


def field_of(kind):
    fields = {"id": "campaign_id", "bracket_id": "campaign_id", "name": "campaign_id", "micros": "spend", "money": "spend"}
    return fields.get(kind, kind)


def columns_option(report, columns_of_field):
    parts = []
    for field in ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"]:
        names = [escaped(column.name.strip()) for column in columns_of_field.get(field, [])]
        if report.chance(30):
            names = ["No such name"] + names
        if report.chance(30):
            names = names + ["Neither this one"]
        if field == "spend" and report.chance(50):
            names = [name.replace("(EUR)", "(*)") for name in names]
        if report.chance(20):
            names = [name.upper() if name.isascii() else " %s " % name for name in names]
        if names:
            parts.append("%s:%s" % (field, "|".join(names)))
    report.rng.shuffle(parts)
    return report.rng.choice([";", ";", ","]).join(parts)


def escaped(name):
    return name.replace("\\", "\\\\").replace("|", "\\|").replace(";", "\\;")


def give_style(report):
    mark = report.decimal
    report.options["decimal"] = report.rng.choice([mark, mark, mark, MARK_WORDS[mark], "auto"])
    if report.options["decimal"] != "auto":
        thousands = MARK_OPTIONS.get(report.thousands, report.thousands)
        report.options["thousands"] = report.rng.choice([thousands, thousands, MARK_WORDS.get(thousands, thousands), "any"])
        if report.options["thousands"] == "none" and report.chance(50):
            del report.options["thousands"]


def give_delimiter(report):
    report.options["delimiter"] = "tab" if report.delimiter == "\t" else report.delimiter


def add_rows(report, preset):
    rng = report.rng
    count = rng.choice([0, 1, 2, 3, 5, 8, 13, 21, 34, 55]) if report.chance(98) else rng.randrange(100, 250)
    campaigns = [(str(rng.randrange(10**9, 10**11)), rng.choice(NAMES)) for _ in range(rng.randrange(1, 8))]
    # Names of totals and marks may be campaigns, though not often.
    campaigns = [(number, name if report.chance(20) else rng.choice(NAMES[:5] + NAMES[5:11])) for number, name in campaigns]
    currency = rng.choice(["EUR", "USD", "JPY"])
    has_whole_conversions = report.options.get("conversions", "whole" if preset is None else "decimal") == "whole"
    places = rng.choice([2, 2, 2, 2, 6, 0, 3, 1])
    if preset == "google_ads" or report.options.get("decimal") == "auto":
        places = 2
    report.conversion_places = 0 if has_whole_conversions else rng.choice([0, 1, 2, 2, 6, 12])
    report.spend_places = places
    report.is_spend_grouped = report.chance(40)
    report.currency = currency
    report.has_empty_cells = preset == "meta_ads" or "clicks" in report.options.get("zero_if_empty", "")
    report.sums = {"impressions": 0, "clicks": 0, "spend": 0, "conversions": 0}
    for _ in range(count):
        number, name = rng.choice(campaigns)
        impressions = rng.choice([0, rng.randrange(1000), rng.randrange(10**6), rng.randrange(10**6)])
        values = {
            "impressions": impressions,
            "clicks": rng.randrange(impressions // 10 + 1),
            "spend": rng.randrange(10 ** rng.randrange(1, 8)) * 10 ** max(0, places - 2),
            "conversions": rng.choice([0, rng.randrange(10 ** rng.randrange(1, 7))]),
        }
        for field, value in values.items():
            report.sums[field] += value
        report.rows.append([cell(report, column.kind, number, name, values) for column in report.columns])


def cell(report, kind, number, name, values):
    if kind == "id":
        return number
    if kind == "bracket_id":
        return "[%s]" % number if report.chance(80) else number
    if kind == "name":
        return name
    if kind == "text":
        return report.rng.choice(["Enabled", "Paused", "", " --", "Search"])
    if kind == "date":
        return report.rng.choice(["2026-09-01", "2026-09-02", "9/1/2026"])
    if kind == "currency":
        return report.currency
    if kind == "ratio":
        return report.rng.choice([" --", "3.24%", "0,76%", "< 10%", "> 90%"])
    if kind == "number":
        return report.decimal_text(report.rng.randrange(10**5), report.rng.choice([0, 2]))
    if kind in ("impressions", "clicks"):
        if values[kind] == 0 and kind == "clicks" and report.chance(40 if report.has_empty_cells else 1):
            return ""
        text = report.decimal_text(values[kind], 0)
        return text + report.decimal + "00" if report.chance(3) else text
    if kind == "micros":
        return str(values["spend"] * 10 ** (6 - report.spend_places))
    if kind == "conversions":
        if values[kind] == 0 and report.chance(70 if report.has_empty_cells else 1):
            return ""
        return report.decimal_text(values[kind], report.conversion_places)
    spend = report.decimal_text(values["spend"], report.spend_places, report.is_spend_grouped)
    if kind == "money" or report.sign:
        space = report.rng.choice(["", "", "", " ", "\u00a0"])
        return report.sign + space + spend if report.chance(90) else spend + space + report.sign
    return spend


def add_totals(report, preset):
    if report.chance(40):
        return
    labels = TOTAL_LABELS.get(preset, ["Total: Campaigns", "Total", ""])
    for number in range(report.rng.choice([1, 1, 1, 2, 4])):
        label = labels[number % len(labels)] if report.chance(70) else report.rng.choice(labels)
        row = total_row(report, label)
        at = {"meta_ads": 0}.get(preset, len(report.rows))
        report.rows.insert(at if report.chance(90) else report.rng.randrange(len(report.rows) + 1), row)


def total_row(report, label):
    """The label stands in the first column that is not a number, or in the campaign's."""
    empty = report.rng.choice(["", "", " --", "-", "--", "---"])
    row = []
    for column in report.columns:
        if column.kind in ("id", "bracket_id", "name", "text", "date", "ratio", "number"):
            row.append(report.rng.choice([empty, empty, ""]))
        else:
            row.append(cell(report, column.kind, "", "", report.sums))
    spend = position_of(report, ["spend", "money"])
    if report.chance(15):
        cents = max(0, report.sums["spend"] + report.rng.choice([-1, 1]) * 10 ** max(0, report.spend_places - 2))
        row[spend if spend is not None else 0] = report.decimal_text(cents, report.spend_places, report.is_spend_grouped)
    at = 0 if report.chance(70) else position_of(report, ["text", "id", "name"]) or 0
    if report.columns[at].kind in ("id", "bracket_id", "name", "text", "date"):
        row[at] = label
    return row


def add_surroundings(report):
    rng = report.rng
    is_found = report.options.get("header") == "find" or ("format" in report.options and report.options.get("header") != "first")
    if report.chance(50 if is_found else 3):
        report.preamble = [rng.choice(PREAMBLES) for _ in range(rng.choice([1, 2, 2, 5, 9]))]
        if report.chance(4):
            report.preamble += ["More of it %d" % number for number in range(rng.choice([80, 95, 98, 99, 100, 101]))]
        if report.chance(2):
            report.preamble += ["long " * rng.choice([2000, 12000]) + "%d" % number for number in range(rng.choice([1, 4, 9]))]
        if report.chance(30):
            report.preamble.insert(rng.randrange(len(report.preamble) + 1), rng.choice(["", " ", "\t ", '""']))
        if report.chance(30):
            report.preamble.append("")
    if report.chance(2):
        # The same header with another delimiter: both fit.
        other = rng.choice([mark for mark in ",;\t" if mark != report.delimiter])
        names = [column.name for column in report.columns]
        (report.preamble if report.chance(70) else report.footer).append(other.join(names))
    is_ended = report.options.get("end", "") == "blank_line" or report.options.get("format") in ("microsoft_ads", "dv360")
    if report.chance(60 if is_ended else 10):
        report.footer += [rng.choice(["", "", "", " ", report.delimiter * (len(report.columns) - 1)])]
        report.footer += [rng.choice(FOOTERS[:-1] if report.chance(95) else FOOTERS) for _ in range(rng.randrange(8))]
        if report.chance(10):
            report.footer.insert(rng.randrange(len(report.footer)), rng.choice(["", "\u00a0", report.delimiter]))


# --- What is wrong with it ---------------------------------------------------------------------------------------------------


def damage(report):
    rng = report.rng
    if report.chance(45):
        for _ in range(rng.choice([1, 1, 2, 3, 8])):
            rng.choice([odd_number, odd_number, odd_number, odd_number, odd_id, odd_id, odd_count, odd_cell])(report)
    for percent, change in [
        (2, drop_column),
        (2, double_column),
        (2, rename_column),
        (8, respace_names),
        (2, second_currency),
        (3 if report.options.get("format") in ("amazon_sp", "google_ads") else 0.3, refused_column),
        (1, long_cell),
        (2, whole_spend),
        (2, first_spend),
        (4, other_mark),
        (1, no_header),
    ]:
        if report.chance(percent):
            change(report)


def random_row(report):
    return report.rng.choice(report.rows) if report.rows else None


def set_cell(report, kinds, text):
    row, at = random_row(report), position_of(report, kinds)
    if row and at is not None and at < len(row):
        row[at] = text


def odd_number(report):
    kinds = report.rng.choice([["impressions"], ["clicks"], ["spend", "money", "micros"], ["conversions"]])
    set_cell(report, kinds, report.rng.choice(ODD_NUMBERS))


def odd_id(report):
    set_cell(report, report.rng.choice([["id", "bracket_id"], ["name"]]), report.rng.choice(ODD_IDS))


def odd_count(report):
    row = random_row(report)
    if row and report.chance(50):
        row.append(report.rng.choice(["", "x"]))
    elif row and len(row) > 1:
        row.pop()


def odd_cell(report):
    row = random_row(report)
    if row:
        row[report.rng.randrange(len(row))] = report.rng.choice(["", " --", "-", "Total: Campaigns", "x", ' "', "\r", "EUR"])


def drop_column(report):
    at = report.rng.randrange(len(report.columns))
    report.columns.pop(at)
    for row in report.rows:
        del row[at : at + 1]


def double_column(report):
    at = report.rng.randrange(len(report.columns))
    report.columns.append(report.columns[at])
    for row in report.rows:
        row.extend(row[at : at + 1])


def rename_column(report):
    at = report.rng.randrange(len(report.columns))
    name, kind = report.columns[at]
    changed = [name + "s", name[:-1], name.replace(" ", ""), "All " + name, "", name.replace("EUR", "EURO")]
    report.columns[at] = Column(report.rng.choice(changed), kind)


def respace_names(report):
    """Names that are the same for all that. Without an option for reports, no-break spaces would count."""
    spaces = ["\u00a0", "\u202f", " "] if "format" in report.options or "columns" in report.options else [" "]
    for at, (name, kind) in enumerate(report.columns):
        if report.chance(40):
            name = name.replace(" ", report.rng.choice(spaces))
            name = report.rng.choice([name, name.upper() if name.isascii() else name, name.lower() if name.isascii() else name])
            report.columns[at] = Column(report.rng.choice(["", "", " ", "\t"] + spaces) + name + report.rng.choice(["", " "]), kind)


def second_currency(report):
    other = report.rng.choice(["GBP", "", " ", "eur", " EUR"])
    set_cell(report, ["currency"], other)
    at = position_of(report, ["money"])
    if at is not None and report.sign:
        row = random_row(report)
        if row and at < len(row):
            row[at] = row[at].replace(report.sign, report.rng.choice(["", "£", "US$"]))


def refused_column(report):
    name = report.rng.choice(["Entity", "Row Type", "entity ", "ROW TYPE"])
    report.columns.insert(0, Column(name, "text"))
    for row in report.rows:
        row.insert(0, "Campaign")


def long_cell(report):
    row = random_row(report)
    if row:
        length = report.rng.choice([65000, 65300, 65600, 70000, 140000])
        row[report.rng.randrange(len(row))] = report.rng.choice(["x", 'x"', "x\n", "é"]) * (length // 2)


def whole_spend(report):
    """Every spend without decimals: it tells no mark."""
    at = position_of(report, ["spend", "money"])
    for row in report.rows:
        if at is not None and at < len(row):
            row[at] = row[at].split(report.decimal)[0]


def first_spend(report):
    at = position_of(report, ["spend", "money"])
    if at is not None and report.rows and at < len(report.rows[0]):
        report.rows[0][at] = report.rng.choice(["12", "1.234", "1,234", "0", "", " --", "1.2", "3,40", ".22", "1.234,5", "5."])


def other_mark(report):
    """One spend with the other decimal mark."""
    text = report.decimal_text(report.rng.randrange(10**7), report.rng.choice([1, 2, 2, 2, 3]), is_grouped=False)
    set_cell(report, ["spend", "money"], swap_marks(text))


def no_header(report):
    report.columns = [Column(text, "text") for text in ["x"] * len(report.columns)]


# --- Writing it --------------------------------------------------------------------------------------------------------------


def written(report):
    """The options and the bytes."""
    rng = report.rng
    quoting = rng.choice(["needed", "needed", "needed", "all", "some"])
    names = [column.name for column in report.columns]
    table = ([] if report.options.get("has_header") == "false" else [names]) + report.rows
    lines = list(report.preamble)
    for row in table:
        lines.append(report.delimiter.join(quoted(report, text, quoting) for text in row))
        if report.chance(1):
            lines.append(rng.choice(["", " ", '""', report.delimiter * (len(names) - 1)]))
    lines += report.footer
    text = report.line_end.join(lines) + (report.line_end if report.chance(85) else "")
    if report.chance(2):
        text = text.replace(report.line_end, rng.choice(["\n", "\r\n"]), rng.randrange(5))
    if report.chance(1):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + '"' + text[at:]
    return report.options, encoded(report, text)


def quoted(report, text, quoting):
    is_needed = any(mark in text for mark in '"\r\n' + report.delimiter)
    if is_needed and report.chance(1):
        return text
    if not is_needed and (quoting == "needed" or (quoting == "some" and report.chance(50))):
        return text
    behind = "x" if report.chance(0.1) else ""
    return '"%s"%s' % (text.replace('"', '""'), behind)


def encoded(report, text):
    way = report.rng.choice(["utf-8", "utf-8", "utf-8", "bom", "utf-16le", "utf-16be", "windows-1252"])
    if way == "bom":
        if report.chance(20):
            report.options["encoding"] = "windows-1252"
        return b"\xef\xbb\xbf" + text.encode("utf-8", "surrogateescape")
    if way == "utf-16le":
        return b"\xff\xfe" + text.encode("utf-16le", "surrogatepass")
    if way == "utf-16be":
        return b"\xfe\xff" + text.encode("utf-16be", "surrogatepass")
    if way == "windows-1252":
        report.options["encoding"] = "windows-1252"
        return text.encode("cp1252", "replace")
    return text.encode("utf-8", "surrogateescape")


# --- Samples -----------------------------------------------------------------------------------------------------------------


def samples(directory):
    """The name, what is known and the bytes of each."""
    for path in sorted(glob.glob(os.path.join(directory, "*.json"))):
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
        with open(os.path.join(directory, known["file"]), "rb") as file:
            yield os.path.basename(path).removesuffix(".json"), known, file.read()


def preset_options(known):
    """Some samples need more than their preset."""
    preset = known["preset"].split()[0]
    if preset == known["preset"]:
        return {"format": preset}
    return {"format": preset, "encoding": "windows-1252", "decimal": ",", "thousands": "."}


def sample_options(known):
    """Ways to say the same."""
    told = known["options"]
    columns = {field: "|".join(map(escaped, names)) for field, names in told["columns"].items()}
    explicit = {
        "columns": ";".join("%s:%s" % pair for pair in columns.items()),
        "header": told["header"],
        "delimiter": "tab" if told["delimiter"] == "\t" else told["delimiter"],
        "decimal": told["decimal"],
        "thousands": told["thousands"],
        "currency": told["currency"],
        "spend_unit": told["spend_unit"],
        "conversions": told["conversions"],
        "zero_if_empty": ",".join(told["zero_if_empty"]) or "none",
        "totals": "|".join(told["totals_labels"]),
        "end": "blank_line" if told["end_at_blank_line"] else "file",
        "id_brackets": "true" if told["id_brackets"] else "false",
    }
    if told["encoding"]:
        explicit["encoding"] = told["encoding"]
    preset = preset_options(known)
    yield "preset", preset
    yield "explicit", explicit
    yield "explicit, auto", {**explicit, "delimiter": "auto"}
    yield "preset and columns", {**preset, "columns": explicit["columns"]}
    yield "preset and style", {**preset, "decimal": told["decimal"], "thousands": told["thousands"]}
    yield "preset and delimiter", {**preset, "delimiter": explicit["delimiter"]}


# --- Mutations ---------------------------------------------------------------------------------------------------------------


def mutated_cases(directory, seed, count):
    known_samples = list(samples(directory))
    for number in range(count):
        rng = random.Random("mutated %s %d" % (seed, number))
        while True:
            name, known, data = rng.choice(known_samples)
            _, options = rng.choice(list(sample_options(known))[:2] + [("preset", preset_options(known))] * 4)
            data = mutated(rng, known, options, data)
            if not is_archive(data):
                break
        yield "mutated %s/%d, %s" % (seed, number, name), options, data


def mutated(rng, known, options, data):
    codec = {"utf-16 with BOM": "utf-16", "utf-8 with BOM": "utf-8-sig"}.get(known["encoding"], known["encoding"])
    table = Lines(rng, known, data.decode(codec))
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        rng.choice(CHANGES)(table)
    text = "".join(table.lines)
    data = text.encode(codec, "replace")
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    for _ in range(rng.choice([0] * 12 + [1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:
            data = data[:at] + bytes([rng.choice([rng.randrange(256), 10, 13, 34, 44, 59, 255])]) + data[at + 1 :]
        else:
            data = data[:at] + data[at + rng.randrange(1, 30) :]
    return data


class Lines:
    """The lines of a sample, with their ends."""

    def __init__(self, rng, known, text):
        self.rng = rng
        self.delimiter = known["options"]["delimiter"]
        self.lines = text.splitlines(keepends=True) if "\x85" not in text else [line + "\n" for line in text.split("\n")]
        self.end = {"LF": "\n", "CRLF": "\r\n"}[known["line_end"]]
        self.decimal = known["options"]["decimal"]
        spend_names = known["options"]["columns"]["spend"]
        starts = [name.split("(*)")[0] for name in spend_names]
        self.header = next(at for at, line in enumerate(self.lines) if any(start in line for start in starts))
        self.footer = [row["line"] - 1 for row in known["expected"]["skipped"]]

    def header_at(self):
        return min(self.header, len(self.lines) - 1)

    def cells(self, at):
        return next(csv.reader(io.StringIO(self.lines[at], newline=""), delimiter=self.delimiter), [])

    def write(self, at, cells):
        output = io.StringIO(newline="")
        csv.writer(output, delimiter=self.delimiter, lineterminator=self.end).writerow(cells)
        self.lines[at] = output.getvalue()

    def any_line(self):
        return self.rng.randrange(len(self.lines))

    def any_row(self):
        return self.rng.randrange(self.header_at() + 1, len(self.lines)) if self.header_at() + 1 < len(self.lines) else 0

    def total(self):
        totals = [at for at in self.footer if at < len(self.lines)]
        return self.rng.choice(totals) if totals else self.any_row()


def change_total(table):
    at = table.total()
    line = table.lines[at]
    way = table.rng.choice(["move", "double", "remove"])
    if way != "double" and len(table.lines) > 1:
        del table.lines[at]
    if way != "remove":
        table.lines.insert(table.any_row(), line)


def set_any_cell(table, text):
    at = table.any_row()
    cells = table.cells(at)
    if cells:
        cells[table.rng.randrange(len(cells))] = text
        table.write(at, cells)


def change_cell(table):
    set_any_cell(table, table.rng.choice(["", "", " --", "-", "<5", "1.2E+17", "1,2E+17", "12.345", "1.234", "0", "Total: Campaigns"]))


def odd_cell_of_sample(table):
    set_any_cell(table, table.rng.choice(ODD_NUMBERS + ODD_IDS).replace("\udcff", ""))


def swap_marks(text):
    return text.translate(str.maketrans(".,", ",."))


def swap_marks_once(table):
    at = table.any_row()
    cells = table.cells(at)
    numbers = [at for at, text in enumerate(cells) if any(mark in text for mark in ".,")]
    if numbers:
        cell = table.rng.choice(numbers)
        cells[cell] = swap_marks(cells[cell])
        table.write(at, cells)


def swap_spend(table):
    """A number with two decimals, which is a spend in most samples, with another mark or the same."""
    at = table.any_row()
    cells = table.cells(at)
    numbers = [cell for cell, text in enumerate(cells) if re.fullmatch(r"[0-9]+[.,][0-9]{2}", text)]
    if numbers:
        cells[table.rng.choice(numbers)] = table.rng.choice(["1,23", "1.23", "1.5", "12,5", "1.234,50", "1,234.50"])
        table.write(at, cells)


def swap_all_marks(table):
    for at in range(table.header_at() + 1, len(table.lines)):
        cells = table.cells(at)
        if cells:
            table.write(at, [swap_marks(text) if text[:1].isdigit() else text for text in cells])


def change_all_marks(table):
    """Other thousands marks in every number that has one."""
    mark = table.rng.choice([" ", "\u00a0", "\u2009", "'", ""])
    if table.lines and table.delimiter != " ":
        thousands = "," if table.decimal == "." else "."
        for at in range(table.header_at() + 1, len(table.lines)):
            cells = table.cells(at)
            if cells:
                table.write(at, [text.replace(thousands, mark) if text[:1].isdigit() else text for text in cells])


def change_column(table):
    way = table.rng.choice(["rename", "drop", "double"])
    header = table.cells(table.header_at())
    if not header:
        return
    at = table.rng.randrange(len(header))
    if way == "rename":
        renamed = [header[at] + " ", header[at].upper(), header[at] + "s", "x", header[at][:-1], "Clicks", "Row Type", "Entity"]
        header[at] = table.rng.choice(renamed)
        table.write(table.header_at(), header)
        return
    for line in range(table.header_at(), len(table.lines)):
        cells = table.cells(line)
        if at < len(cells):
            changed = cells[:at] + cells[at + 1 :] if way == "drop" else cells + [cells[at]]
            table.write(line, changed)


def change_currency(table):
    at = table.any_row()
    cells = table.cells(at)
    other = table.rng.choice(["GBP", "CHF", ""])
    if any(text in ("EUR", "USD", "GBP") for text in cells):
        table.write(at, [other if text in ("EUR", "USD", "GBP") else text for text in cells])


def change_lines(table):
    at = table.any_line()
    other = table.any_line()
    way = table.rng.choice(["remove", "double", "swap", "blank", "blank"])
    if way == "remove" and len(table.lines) > 1:
        del table.lines[at]
    elif way == "double":
        table.lines.insert(other, table.lines[at])
    elif way == "swap":
        table.lines[at], table.lines[other] = table.lines[other], table.lines[at]
    elif way == "blank":
        table.lines.insert(at, table.rng.choice(["", "", " ", '""']) + table.end)


def change_delimiter(table):
    """Everywhere, also where it is text."""
    other = table.rng.choice([mark for mark in ",;\t|" if mark != table.delimiter])
    for at in range(len(table.lines)):
        if table.rng.random() < 0.5 or '"' not in table.lines[at]:
            table.lines[at] = table.lines[at].replace(table.delimiter, other)
        else:
            cells = table.cells(at)
            output = io.StringIO(newline="")
            csv.writer(output, delimiter=other, lineterminator=table.end).writerow(cells)
            table.lines[at] = output.getvalue()
    table.delimiter = other


def insert_quote(table):
    at = table.any_line()
    line = table.lines[at]
    within = table.rng.randrange(len(line) + 1)
    if table.rng.random() < 0.5:
        # Where it opens a field.
        within = line.find(table.delimiter, within) + 1
    table.lines[at] = line[:within] + '"' + line[within:]


def change_line_ends(table):
    old, table.end = table.end, table.rng.choice(["\n", "\r\n", "\r"])
    table.lines = [line.removesuffix(old) + table.end if line.endswith(old) else line for line in table.lines]


CHANGES = [
    change_total,
    change_total,
    change_cell,
    change_cell,
    change_cell,
    odd_cell_of_sample,
    odd_cell_of_sample,
    swap_marks_once,
    swap_spend,
    swap_all_marks,
    change_all_marks,
    change_column,
    change_currency,
    change_lines,
    change_lines,
    change_delimiter,
    insert_quote,
    change_line_ends,
]
