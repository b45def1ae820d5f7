//! The presets: what the reports of ad platforms look like, one table. `docs/formats.md` tells where the facts are from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::delimiter::DelimiterChoice;
use super::values::{
    ConversionDigits, CurrencySigns, DataEnd, DecimalMark, Field, HeaderPlace, InvalidValue, SpendUnit, Thousands,
    ZeroIfEmpty, join_names,
};

/// A kind of report that a platform exports.
#[derive(Clone, Copy)]
pub struct Format(&'static FormatDefinition);

/// How the reports of a kind are read.
#[derive(Debug, PartialEq, Eq)]
pub struct FormatDefinition {
    /// The name in options.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// It has been tried with real files; the others are after the platform's documentation and a few files.
    pub is_verified: bool,
    /// The columns with the campaign's id.
    pub ids: &'static [&'static str],
    /// The columns with its name, which is the key where there is no id.
    pub names: &'static [&'static str],
    /// The columns with the date.
    pub dates: &'static [&'static str],
    /// The columns with the impressions.
    pub impressions: &'static [&'static str],
    /// The columns with the clicks.
    pub clicks: &'static [&'static str],
    /// The columns with the spend.
    pub spend: &'static [&'static str],
    /// The columns with the conversions.
    pub conversions: &'static [&'static str],
    /// The decimal mark.
    pub decimal: DecimalMark,
    /// The mark between groups of whole digits.
    pub thousands: Thousands,
    /// Whether conversions may have decimals.
    pub conversion_digits: ConversionDigits,
    /// What becomes of currency signs.
    pub currency: CurrencySigns,
    /// What a spend counts.
    pub spend_unit: SpendUnit,
    /// The fields in which an empty cell is zero.
    pub zero_if_empty: ZeroIfEmpty,
    /// Further cells in the place of a campaign id that are none.
    pub no_value: &'static [&'static str],
    /// Labels of rows that are sums of others.
    pub totals: &'static [&'static str],
    /// Which of the totals is the sum of exactly the rows of the file.
    pub checked: CheckedTotal,
    /// Where the data ends.
    pub end: DataEnd,
    /// Campaign ids may stand in brackets.
    pub id_brackets: bool,
    /// A column that shows that the file holds other rows than one for each campaign and day.
    pub refused_column: Option<&'static str>,
    /// A column that tells what the conversions count: with several values their sum means nothing.
    pub result_indicator: Option<&'static str>,
}

/// Which of the totals is the sum of exactly the rows of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedTotal {
    /// Unknown.
    None,
    /// The only one.
    Only,
    /// The one with one of these labels.
    Labelled(&'static [&'static str]),
}

/// What most of them have in common.
const PLAIN: FormatDefinition = FormatDefinition {
    name: "",
    title: "",
    is_verified: false,
    ids: &[],
    names: &[],
    dates: &[],
    impressions: &["Impressions"],
    clicks: &["Clicks"],
    spend: &["Spend"],
    conversions: &["Conversions"],
    decimal: DecimalMark::Point,
    thousands: Thousands::None,
    conversion_digits: ConversionDigits::Decimal,
    currency: CurrencySigns::None,
    spend_unit: SpendUnit::One,
    zero_if_empty: ZeroIfEmpty { clicks: false, conversions: false },
    no_value: &[],
    totals: &[],
    checked: CheckedTotal::None,
    end: DataEnd::File,
    id_brackets: false,
    refused_column: None,
    result_indicator: None,
};

static FORMATS: [FormatDefinition; 10] = [
    FormatDefinition {
        name: "google_ads",
        title: "Google Ads",
        is_verified: true,
        ids: &["Campaign ID", "Kampagnen-ID", "ID de la campagne"],
        names: &["Campaign", "Kampagne", "Campagne"],
        dates: &["Day", "Tag", "Jour"],
        impressions: &["Impr.", "Impressionen"],
        clicks: &["Clicks", "Klicks", "Clics"],
        spend: &["Cost", "Kosten", "Coût"],
        decimal: DecimalMark::Auto,
        thousands: Thousands::Any,
        totals: &["Total:", "Gesamt:"],
        checked: CheckedTotal::Labelled(&["Total: Campaigns", "Gesamt: Kampagnen", "Total: Campagnes"]),
        refused_column: Some("Row Type"),
        ..PLAIN
    },
    FormatDefinition {
        name: "google_ads_api",
        title: "Google Ads API",
        is_verified: true,
        ids: &["campaign.id"],
        dates: &["segments.date"],
        impressions: &["metrics.impressions"],
        clicks: &["metrics.clicks"],
        spend: &["metrics.cost_micros"],
        conversions: &["metrics.conversions"],
        spend_unit: SpendUnit::Micros,
        ..PLAIN
    },
    FormatDefinition {
        name: "meta_ads",
        title: "Meta Ads Manager",
        is_verified: true,
        ids: &["Campaign ID"],
        names: &["Campaign name"],
        dates: &["Day", "Reporting starts"],
        clicks: &["Link clicks", "Clicks (all)"],
        spend: &["Amount spent (*)"],
        conversions: &["Results"],
        zero_if_empty: ZeroIfEmpty { clicks: true, conversions: true },
        checked: CheckedTotal::Only,
        result_indicator: Some("Result indicator"),
        ..PLAIN
    },
    FormatDefinition {
        name: "microsoft_ads",
        title: "Microsoft Advertising",
        is_verified: true,
        ids: &["CampaignId", "Campaign ID"],
        names: &["CampaignName", "Campaign name"],
        dates: &["TimePeriod", "Gregorian date"],
        impressions: &["Impressions", "Impr."],
        conversions: &["Conversions", "Conv."],
        totals: &["Overall total", "Deleted items total"],
        end: DataEnd::BlankLine,
        id_brackets: true,
        ..PLAIN
    },
    FormatDefinition {
        name: "tiktok_ads",
        title: "TikTok Ads Manager",
        ids: &["Campaign ID"],
        names: &["Campaign name"],
        dates: &["By Day", "Date"],
        clicks: &["Clicks (destination)", "Clicks (all)"],
        spend: &["Cost"],
        totals: &["Total of # results"],
        checked: CheckedTotal::Only,
        ..PLAIN
    },
    FormatDefinition {
        name: "linkedin_ads",
        title: "LinkedIn Campaign Manager",
        ids: &["Campaign ID"],
        names: &["Campaign Name"],
        dates: &["Start Date (in UTC)"],
        spend: &["Total Spent"],
        thousands: Thousands::Comma,
        totals: &["Total"],
        ..PLAIN
    },
    FormatDefinition {
        name: "amazon_sp",
        title: "Amazon Sponsored Products",
        ids: &["Campaign ID"],
        names: &["Campaign Name"],
        dates: &["Date"],
        spend: &["Spend", "Total cost"],
        conversions: &["7 Day Total Orders (#)", "14 Day Total Orders (#)", "Purchases"],
        thousands: Thousands::Comma,
        currency: CurrencySigns::Strip,
        refused_column: Some("Entity"),
        ..PLAIN
    },
    FormatDefinition {
        name: "dv360",
        title: "Display & Video 360",
        ids: &["Campaign ID"],
        dates: &["Date"],
        spend: &["Revenue (Adv Currency)", "Media Cost (Advertiser Currency)"],
        conversions: &["Total Conversions"],
        checked: CheckedTotal::Only,
        end: DataEnd::BlankLine,
        ..PLAIN
    },
    FormatDefinition {
        name: "cm360",
        title: "Campaign Manager 360",
        ids: &["Campaign ID"],
        dates: &["Date"],
        spend: &["Media Cost"],
        conversions: &["Total Conversions"],
        no_value: &["(not set)"],
        totals: &["Grand Total:"],
        checked: CheckedTotal::Only,
        ..PLAIN
    },
    FormatDefinition {
        name: "pinterest_ads",
        title: "Pinterest Ads",
        ids: &["Campaign ID"],
        names: &["Campaign name"],
        dates: &["Date"],
        clicks: &["Pin clicks"],
        spend: &["Spend in account currency"],
        conversions: &["Total conversions (Checkout)"],
        ..PLAIN
    },
];

impl Format {
    /// Every preset, those that were tried with real files first.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(Self)
    }

    /// How it is read.
    #[must_use]
    pub fn definition(self) -> &'static FormatDefinition {
        self.0
    }
}

impl FormatDefinition {
    /// The names that a field may have in the header, the preferred one first.
    pub fn names_of(&self, field: Field) -> impl Iterator<Item = &'static str> + use<> {
        let (first, second): (_, &[_]) = match field {
            Field::CampaignId => (self.ids, self.names),
            Field::Date => (self.dates, &[]),
            Field::Impressions => (self.impressions, &[]),
            Field::Clicks => (self.clicks, &[]),
            Field::Spend => (self.spend, &[]),
            Field::Conversions => (self.conversions, &[]),
        };
        first.iter().chain(second).copied()
    }

    /// How well it is known.
    #[must_use]
    pub fn status(&self) -> &'static str {
        if self.is_verified { "verified" } else { "experimental" }
    }

    /// The options that it stands for, as they are written: those that are not as in the plain contract anyway.
    #[must_use]
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let columns = Field::ALL.map(|field| {
            let names: Vec<_> = self.names_of(field).collect();
            (!names.is_empty()).then(|| format!("{field}:{}", join_names(&names)))
        });
        let columns: Vec<_> = columns.into_iter().flatten().collect();
        let written = [
            ("columns", Some(columns.join(";"))),
            ("header", Some(HeaderPlace::Find.to_string())),
            ("delimiter", Some(DelimiterChoice::Auto.to_string())),
            ("decimal", written_unless(&self.decimal, &DecimalMark::Point)),
            ("thousands", written_unless(&self.thousands, &Thousands::None)),
            ("conversions", written_unless(&self.conversion_digits, &ConversionDigits::Whole)),
            ("currency", written_unless(&self.currency, &CurrencySigns::None)),
            ("spend_unit", written_unless(&self.spend_unit, &SpendUnit::One)),
            ("zero_if_empty", written_unless(&self.zero_if_empty, &ZeroIfEmpty::default())),
            // Without labels, too, it looks for totals.
            ("totals", Some(join_names(self.totals))),
            ("end", written_unless(&self.end, &DataEnd::File)),
            ("id_brackets", written_unless(&self.id_brackets, &false)),
        ];
        written.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A value as it is written, unless it is the usual one.
fn written_unless<T: fmt::Display + PartialEq>(value: &T, usual: &T) -> Option<String> {
    (value != usual).then(|| value.to_string())
}

/// The columns in which some platform names the currency of a row.
pub(super) const CURRENCY_COLUMNS: [&str; 7] = [
    "Currency code",
    "Currency",
    "CurrencyCode",
    "customer.currency_code",
    "Advertiser Currency",
    "Währungscode",
    "Code de la devise",
];

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl FromStr for Format {
    type Err = InvalidValue;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::all().find(|format| format.0.name == name).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
            InvalidValue::new(name, format!("expected one of {}", names.join(", ")))
        })
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
