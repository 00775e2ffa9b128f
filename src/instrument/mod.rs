//! What is scored, as data: items, scoring key, windows, regions, tertiles, flags, norm chain.
//!
//! `klsi4.toml` is built in; a user's file of the same form defines another instrument or another scoring key. A value of
//! [`Instrument`] is valid by construction: every problem of a definition is found and named when it is read.

mod definition;
mod validate;

use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

use sha2::{Digest, Sha256};

use crate::model::norm::RawRange;
use crate::model::{Mode, PerScale, Scale};

const KLSI4: &str = include_str!("klsi4.toml");

/// Why an instrument definition is refused.
#[derive(Debug, thiserror::Error)]
pub enum InstrumentError {
    /// The file cannot be read.
    #[error("cannot read the instrument file {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML of the expected form: a syntax error, a missing or an unknown key.
    #[error("the instrument definition {origin} does not have the form of `normstream instrument show`: {source}")]
    Form {
        /// Where the definition came from.
        origin: String,
        /// What the parser said, with line and key.
        source: Box<toml::de::Error>,
    },
    /// The file has the right form and wrong content; all problems are listed.
    #[error("the instrument definition {origin} is not valid:{}", problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Invalid {
        /// Where the definition came from.
        origin: String,
        /// One entry per problem.
        problems: Vec<Problem>,
    },
}

/// One problem of a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Problem {
    /// The key that is wrong, as in `items.key.ce`.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

/// A number that stands for a style within one instrument: an index into [`Instrument::style_names`].
pub type StyleId = u8;

/// A window of scores, both ends included; the outer windows are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The lowest score of the middle window.
    pub lowest: i16,
    /// The highest score of the middle window.
    pub highest: i16,
}

impl Window {
    /// Which third a score falls into: 0 below the middle, 1 in it, 2 above.
    pub const fn third(self, score: i16) -> usize {
        if score < self.lowest {
            0
        } else if score <= self.highest {
            1
        } else {
            2
        }
    }

    /// How far a score is from a third of the window; 0 inside it.
    pub const fn distance(self, score: i16, third: usize) -> i16 {
        let distance = match third {
            0 => score - (self.lowest - 1),
            1 if score < self.lowest => self.lowest - score,
            1 => score - self.highest,
            _ => self.highest + 1 - score,
        };
        if distance > 0 { distance } else { 0 }
    }

    /// Whether a score is the last one on its side of a border between two thirds.
    pub const fn is_border(self, score: i16) -> bool {
        score == self.lowest - 1 || score == self.lowest || score == self.highest || score == self.highest + 1
    }
}

/// An age band: from this many completed years until the next band begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgeBand {
    /// The lowest age of the band, in completed years.
    pub from: u16,
    /// The band's name, as in `AGE:25-34`.
    pub name: String,
}

/// The thresholds of the diagnostic flags.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagThresholds {
    /// `low_w` below this W.
    pub low_w_below: f64,
    /// `high_w` above this W.
    pub high_w_above: f64,
    /// `repeated_context_pattern` when one ranking occurs in this many contexts.
    pub repeated_pattern_at: usize,
    /// `excessive_truncation` when this many scales are truncated.
    pub excessive_truncation_at: usize,
}

/// A valid instrument.
#[derive(Debug, Clone)]
pub struct Instrument {
    /// Short name, as in `klsi-4.0`.
    pub id: String,
    /// Full name.
    pub title: String,
    /// How many learning-style items a session has.
    pub style_items: usize,
    /// The items of each mode's raw score, counted from 0, in the order of [`Mode::ALL`].
    pub key: [Vec<usize>; 4],
    /// The median of ACCE, from which `balance_acce` measures.
    pub median_acce: i16,
    /// The median of AERO, from which `balance_aero` measures.
    pub median_aero: i16,
    /// The middle window of ACCE.
    pub acce_window: Window,
    /// The middle window of AERO.
    pub aero_window: Window,
    /// The names of the styles, ascending; a [`StyleId`] indexes them.
    pub style_names: Vec<String>,
    /// The style of each ACCE third (rows) and AERO third (columns).
    pub grid: [[StyleId; 3]; 3],
    /// The names of the learning contexts, in column order.
    pub contexts: Vec<String>,
    /// The region of each ranking code, see [`crate::model::permutation`].
    pub regions: [StyleId; 24],
    /// LFI percentiles: below the first is low, up to and with the second moderate, above high.
    pub tertiles: [f64; 2],
    /// When diagnostic flags are raised.
    pub flags: FlagThresholds,
    /// The templates of the norm chain, most specific first.
    pub chain: Vec<String>,
    /// The age bands, ascending; the first begins at 0.
    pub age_bands: Vec<AgeBand>,
    /// The raw scores that the published norms span; `None` for LFI, which is never truncated.
    pub published_range: PerScale<Option<RawRange>>,
    source: String,
    style_grid: OnceLock<Arc<[(StyleId, StyleId)]>>,
}

impl Instrument {
    /// The built-in KLSI 4.0.
    ///
    /// ```
    /// use normstream::instrument::Instrument;
    /// let klsi = Instrument::klsi4();
    /// assert_eq!(klsi.style_items, 12);
    /// assert_eq!(klsi.style_names[klsi.style_of(17, -23) as usize], "analyzing");
    /// ```
    pub fn klsi4() -> Arc<Instrument> {
        static INSTRUMENT: LazyLock<Result<Arc<Instrument>, String>> =
            LazyLock::new(|| Instrument::parse(KLSI4, "klsi-4.0").map(Arc::new).map_err(|error| error.to_string()));
        match &*INSTRUMENT {
            Ok(instrument) => Arc::clone(instrument),
            Err(error) => unreachable!("the built-in instrument is valid, a test checks it: {error}"),
        }
    }

    /// Reads and validates a definition file.
    pub fn read(path: &Path) -> Result<Instrument, InstrumentError> {
        let origin = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| InstrumentError::Read { path: origin.clone(), source })?;
        Instrument::parse(&text, &origin)
    }

    /// Validates a definition; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Instrument, InstrumentError> {
        let definition: definition::Definition = toml::from_str(text)
            .map_err(|error| InstrumentError::Form { origin: origin.to_owned(), source: Box::new(error) })?;
        validate::validate(&definition, text)
            .map_err(|problems| InstrumentError::Invalid { origin: origin.to_owned(), problems })
    }

    /// The definition as it was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The SHA-256 of the definition, in hexadecimal: two runs with one digest scored by the same rules.
    pub fn digest(&self) -> String {
        Sha256::digest(self.source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The raw scores that a scale can take.
    pub fn raw_range(&self, scale: Scale) -> RawRange {
        let mode = |mode: Mode| {
            let items = self.key[mode as usize].len() as i32;
            RawRange { lowest: items, highest: 4 * items }
        };
        let difference =
            |a: RawRange, b: RawRange| RawRange { lowest: a.lowest - b.highest, highest: a.highest - b.lowest };
        match scale {
            Scale::Ce => mode(Mode::Ce),
            Scale::Ro => mode(Mode::Ro),
            Scale::Ac => mode(Mode::Ac),
            Scale::Ae => mode(Mode::Ae),
            Scale::Acce => difference(mode(Mode::Ac), mode(Mode::Ce)),
            Scale::Aero => difference(mode(Mode::Ae), mode(Mode::Ro)),
            Scale::Lfi => RawRange { lowest: 0, highest: i32::from(self.lfi_denominator()) },
        }
    }

    /// The raw scores that each scale can take.
    pub fn raw_ranges(&self) -> PerScale<RawRange> {
        PerScale::from_fn(|scale| self.raw_range(scale))
    }

    /// The raw scores that norm tables of the instrument may hold: those that the scoring key can give and those that the
    /// published norms span, which may stem from another number of items.
    pub fn norm_ranges(&self) -> PerScale<RawRange> {
        PerScale::from_fn(|scale| {
            let own = self.raw_range(scale);
            let published = self.published_range[scale].unwrap_or(own);
            RawRange { lowest: own.lowest.min(published.lowest), highest: own.highest.max(published.highest) }
        })
    }

    /// The greatest sum of squares S of Kendall's W over the contexts: W = S / this, and norms of LFI are keyed by this − S.
    ///
    /// For m rankings of n = 4 objects it is m²(n³−n)/12 = 5m²: 320 for eight contexts (Legendre 2005).
    pub fn lfi_denominator(&self) -> i16 {
        5 * (self.contexts.len() * self.contexts.len()) as i16
    }

    /// The style of a pair of combination scores (Guide, appendix 1).
    pub fn style_of(&self, acce: i16, aero: i16) -> StyleId {
        self.grid[self.acce_window.third(acce)][self.aero_window.third(aero)]
    }

    /// The style other than the pair's own whose windows are nearest in L1 distance; of equally near ones the first by name.
    pub fn backup_style_of(&self, acce: i16, aero: i16) -> StyleId {
        let own = self.style_of(acce, aero);
        let mut nearest = (i16::MAX, StyleId::MAX);
        for (acce_third, row) in self.grid.iter().enumerate() {
            for (aero_third, &style) in row.iter().enumerate() {
                if style != own {
                    let distance =
                        self.acce_window.distance(acce, acce_third) + self.aero_window.distance(aero, aero_third);
                    // Style ids ascend with names, so the lesser pair is the nearer style, then the first by name.
                    nearest = nearest.min((distance, style));
                }
            }
        }
        nearest.1
    }

    /// Style and backup style of every pair of scores that a session can have, ACCE major; reckoned once.
    pub fn style_grid(&self) -> &Arc<[(StyleId, StyleId)]> {
        self.style_grid.get_or_init(|| {
            let (acce, aero) = (self.raw_range(Scale::Acce), self.raw_range(Scale::Aero));
            let row = |acce: i32| {
                (aero.lowest..=aero.highest).map(move |aero| {
                    let (acce, aero) = (acce as i16, aero as i16);
                    (self.style_of(acce, aero), self.backup_style_of(acce, aero))
                })
            };
            (acce.lowest..=acce.highest).flat_map(row).collect()
        })
    }

    /// The index of the age band of an age in completed years.
    pub fn age_band_of(&self, years: u16) -> usize {
        self.age_bands.partition_point(|band| band.from <= years).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests;
