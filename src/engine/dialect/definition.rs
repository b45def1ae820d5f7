//! A dialect: all that the options and the preset say together.

use serde::{Deserialize, Serialize};

use super::delimiter::{Delimiter, DelimiterChoice};
use super::formats::{CheckedTotal, Format, FormatDefinition};
use super::options::{DialectConflict, DialectOptions};
use super::values::{
    ConversionDigits, CurrencySigns, DataEnd, DecimalMark, Field, HeaderPlace, SpendUnit, Thousands, TotalsRule,
    ZeroIfEmpty,
};

/// How an input is written, where that is not the plain contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    pub(crate) format: Option<Format>,
    /// The names that each field may have, the preferred one first.
    pub(crate) names: Vec<(Field, Vec<String>)>,
    pub(crate) delimiter: DelimiterChoice,
    /// `None`: there is no header.
    pub(crate) header: Option<HeaderPlace>,
    pub(crate) decimal: DecimalMark,
    pub(crate) thousands: Thousands,
    pub(crate) conversions: ConversionDigits,
    pub(crate) currency: CurrencySigns,
    pub(crate) spend_unit: SpendUnit,
    pub(crate) zero_if_empty: ZeroIfEmpty,
    pub(crate) totals: TotalsRule,
    pub(crate) end: DataEnd,
    pub(crate) id_brackets: bool,
}

impl Dialect {
    /// What the options say; `None` when they say nothing but the plain contract. With a format the delimiter is found
    /// out unless it is given.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub fn new(
        options: &DialectOptions,
        delimiter: Option<DelimiterChoice>,
        has_header: bool,
    ) -> Result<Option<Self>, DialectConflict> {
        if options.are_empty() && delimiter != Some(DelimiterChoice::Auto) {
            return Ok(None);
        }
        let preset = options.format.map(Format::definition);
        let delimiter = delimiter.unwrap_or(match preset {
            Some(_) => DelimiterChoice::Auto,
            None => DelimiterChoice::Fixed(Delimiter::COMMA),
        });
        let needs_header = [
            ("format", preset.is_some()),
            ("columns", options.columns.is_some()),
            ("header", options.header.is_some()),
            ("delimiter=auto", delimiter == DelimiterChoice::Auto),
        ];
        if let Some((option, _)) = needs_header.into_iter().find(|(_, is_given)| *is_given && !has_header) {
            return Err(DialectConflict::NeedsHeader { option });
        }
        let header = options.header.unwrap_or(if preset.is_some() { HeaderPlace::Find } else { HeaderPlace::First });
        let names = Field::ALL.map(|field| (field, Self::names_of(field, options, preset)));
        let totals = options.totals.clone().unwrap_or_else(|| match preset {
            Some(preset) => TotalsRule::Labels(preset.totals.iter().map(|label| (*label).to_owned()).collect()),
            None => TotalsRule::Off,
        });
        let decimal = options.decimal.or(preset.map(|preset| preset.decimal)).unwrap_or(DecimalMark::Point);
        let thousands = options.thousands.unwrap_or(match preset {
            // Every mark but the decimal one, whichever that is.
            _ if decimal == DecimalMark::Auto => Thousands::Any,
            Some(preset) => preset.thousands,
            None => Thousands::None,
        });
        let is_same = matches!(
            (decimal, thousands),
            (DecimalMark::Point, Thousands::Point) | (DecimalMark::Comma, Thousands::Comma)
        );
        if is_same {
            return Err(DialectConflict::SameMarks);
        }
        Ok(Some(Self {
            format: options.format,
            names: names.into(),
            delimiter,
            header: has_header.then_some(header),
            decimal,
            thousands,
            conversions: options
                .conversions
                .or(preset.map(|preset| preset.conversion_digits))
                .unwrap_or(ConversionDigits::Whole),
            currency: options.currency.or(preset.map(|preset| preset.currency)).unwrap_or(CurrencySigns::None),
            spend_unit: options.spend_unit.or(preset.map(|preset| preset.spend_unit)).unwrap_or(SpendUnit::One),
            zero_if_empty: options.zero_if_empty.or(preset.map(|preset| preset.zero_if_empty)).unwrap_or_default(),
            totals,
            end: options.end.or(preset.map(|preset| preset.end)).unwrap_or(DataEnd::File),
            id_brackets: options.id_brackets.or(preset.map(|preset| preset.id_brackets)).unwrap_or_default(),
        }))
    }

    fn names_of(field: Field, options: &DialectOptions, preset: Option<&FormatDefinition>) -> Vec<String> {
        if let Some(names) = options.columns.as_ref().and_then(|columns| columns.of(field)) {
            return names.to_vec();
        }
        match preset {
            Some(preset) => preset.names_of(field).map(str::to_owned).collect(),
            None => vec![field.name().to_owned()],
        }
    }

    /// True when every field has a name that it may be found by.
    pub(crate) fn is_consistent(&self) -> bool {
        let fields = self.names.iter().map(|(field, _)| *field);
        fields.eq(Field::ALL) && self.names.iter().all(|(field, names)| *field == Field::Date || !names.is_empty())
    }

    /// False when what a row means depends on rows before it: then only one thread can read the input.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        self.end == DataEnd::File
    }

    fn preset(&self) -> Option<&'static FormatDefinition> {
        self.format.map(Format::definition)
    }

    /// Further cells that are no campaign id.
    pub(crate) fn no_value(&self) -> &'static [&'static str] {
        self.preset().map_or(&[], |preset| preset.no_value)
    }

    pub(crate) fn checked_total(&self) -> CheckedTotal {
        self.preset().map_or(CheckedTotal::None, |preset| preset.checked)
    }

    pub(crate) fn refused_column(&self) -> Option<&'static str> {
        self.preset().and_then(|preset| preset.refused_column)
    }

    pub(crate) fn result_indicator(&self) -> Option<&'static str> {
        self.preset().and_then(|preset| preset.result_indicator)
    }

    /// The platforms' ids are whole numbers or words: what looks like a rounded one has been through a spreadsheet.
    pub(crate) fn refuses_rounded_ids(&self) -> bool {
        self.format.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(options: &[(&str, &str)]) -> Result<Option<Dialect>, DialectConflict> {
        let mut given = DialectOptions::default();
        for (name, value) in options {
            assert_eq!(given.set(name, value), Ok(true), "{name}={value}");
        }
        Dialect::new(&given, None, true)
    }

    #[test]
    fn what_is_given_wins_over_the_preset_and_nothing_is_the_plain_contract() {
        assert_eq!(dialect(&[]), Ok(None));
        let preset = dialect(&[("format", "google_ads")]).unwrap().unwrap();
        assert_eq!((preset.delimiter, preset.header), (DelimiterChoice::Auto, Some(HeaderPlace::Find)));
        let changed = dialect(&[("format", "google_ads"), ("columns", "clicks:Interactions"), ("decimal", ",")]);
        let changed = changed.unwrap().unwrap();
        assert_eq!(changed.names[3], (Field::Clicks, vec!["Interactions".to_owned()]));
        assert_eq!((changed.decimal, changed.thousands), (DecimalMark::Comma, Thousands::Any));
        assert_eq!(changed.names[4], preset.names[4]);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert_eq!(dialect(&[("decimal", ","), ("thousands", ",")]), Err(DialectConflict::SameMarks));
        assert_eq!(dialect(&[("thousands", ".")]), Err(DialectConflict::SameMarks));
        let options = DialectOptions { header: Some(HeaderPlace::Find), ..DialectOptions::default() };
        let conflict = Dialect::new(&options, None, false).unwrap_err();
        assert_eq!(conflict, DialectConflict::NeedsHeader { option: "header" });
        let without_header = DialectOptions { decimal: Some(DecimalMark::Comma), ..DialectOptions::default() };
        assert_eq!(Dialect::new(&without_header, None, false).unwrap().unwrap().header, None);
    }

    #[test]
    fn a_preset_is_what_its_options_say() {
        for format in Format::all() {
            let preset = dialect(&[("format", format.definition().name)]).unwrap().unwrap();
            let (mut options, mut delimiter) = (DialectOptions::default(), None);
            for (name, value) in format.definition().options() {
                match name {
                    "delimiter" => delimiter = Some(value.parse().unwrap()),
                    _ => assert_eq!(options.set(name, &value), Ok(true), "{name}={value}"),
                }
            }
            let written = Dialect::new(&options, delimiter, true).unwrap().unwrap();
            assert_eq!(Dialect { format: preset.format, ..written }, preset, "{format}");
        }
    }

    #[test]
    fn a_dialect_survives_being_stored() {
        let preset = dialect(&[("format", "amazon_sp"), ("columns", "spend:Total cost|Spend")]).unwrap().unwrap();
        let stored = postcard::to_allocvec(&preset).unwrap();
        assert_eq!(postcard::from_bytes::<Dialect>(&stored).unwrap(), preset);
    }
}
