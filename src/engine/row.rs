//! From the fields of a record to a row that counts, or the reason why it does not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dialect::{Columns, trim};
use super::number::{Spend, parse_count, parse_spend};

/// The longest campaign id in bytes.
pub const MAX_CAMPAIGN_ID_BYTES: usize = 256;

/// Why a data record did not count. The first that applies, in this order, is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Longer than allowed, or a quote still open at the end of the input.
    MalformedRecord,
    /// Not exactly as many fields as the header has.
    ColumnCount,
    /// Empty, longer than [`MAX_CAMPAIGN_ID_BYTES`], or not UTF-8.
    CampaignId,
    /// Not an acceptable count.
    Impressions,
    /// Not an acceptable count.
    Clicks,
    /// Not an acceptable amount.
    Spend,
    /// Not an acceptable count.
    Conversions,
}

impl SkipReason {
    /// Every reason, in order.
    pub const ALL: [Self; 7] = [
        Self::MalformedRecord,
        Self::ColumnCount,
        Self::CampaignId,
        Self::Impressions,
        Self::Clicks,
        Self::Spend,
        Self::Conversions,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedRecord => "malformed_record",
            Self::ColumnCount => "column_count",
            Self::CampaignId => "campaign_id",
            Self::Impressions => "impressions",
            Self::Clicks => "clicks",
            Self::Spend => "spend",
            Self::Conversions => "conversions",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row that counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// Trimmed, not empty, UTF-8, at most [`MAX_CAMPAIGN_ID_BYTES`] long.
    pub(crate) campaign_id: &'a [u8],
    pub(crate) impressions: u64,
    pub(crate) clicks: u64,
    pub(crate) spend: Spend,
    /// Whole ones.
    pub(crate) conversions: u64,
    /// The rest of one, in units of 10^-12: less than a whole one.
    pub(crate) conversion_units: u64,
}

/// Judges a record of `count` fields, of which `field` gives the one at an index.
pub(crate) fn read_row<'a>(
    columns: &Columns,
    count: usize,
    field: impl Fn(usize) -> &'a [u8],
) -> Result<Row<'a>, SkipReason> {
    if count != columns.count {
        return Err(SkipReason::ColumnCount);
    }
    let field = |index| trim(field(index));
    let campaign_id = field(columns.campaign_id);
    if campaign_id.is_empty() || campaign_id.len() > MAX_CAMPAIGN_ID_BYTES || std::str::from_utf8(campaign_id).is_err()
    {
        return Err(SkipReason::CampaignId);
    }
    Ok(Row {
        campaign_id,
        impressions: parse_count(field(columns.impressions)).ok_or(SkipReason::Impressions)?,
        clicks: parse_count(field(columns.clicks)).ok_or(SkipReason::Clicks)?,
        spend: parse_spend(field(columns.spend)).ok_or(SkipReason::Spend)?,
        conversions: parse_count(field(columns.conversions)).ok_or(SkipReason::Conversions)?,
        conversion_units: 0,
    })
}
