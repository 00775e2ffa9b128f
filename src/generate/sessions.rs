//! Generated sessions: options, and the batches of one table.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::generate::GenerateError;
use crate::generate::preference::{ITEMS, Preference};
use crate::generate::random::{NormalTable, Purpose, Streams};
use crate::generate::respondent::{Respondent, TRAITS};
use crate::generate::spoil::Spoilt;
use crate::generate::tables::{AttributeColumns, long_columns, long_fields, packed_columns, packed_fields};
use crate::generate::tables::{wide_columns, wide_fields};
use crate::model::Layout;

/// The first completion, 2023-01-01T00:00:00Z, in seconds since 1970.
const FIRST_COMPLETION: i64 = 1_672_531_200;
/// How long sessions were completed: three years, in seconds.
const COMPLETION_SECONDS: u32 = 1096 * 86_400;
/// Respondents with adjacent ids in one team.
const TEAM_SIZE: u64 = 8;

/// Who the respondents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Respondents {
    /// Each session's respondent is drawn from as many as its `session_id`: two sessions a respondent on average, more for low
    /// ids, and about half as many respondents as sessions however long the file is.
    #[default]
    Growing,
    /// Each session's respondent is drawn from this many.
    Fixed(NonZeroU64),
}

/// What sessions to generate. A session depends on `seed`, its `session_id`, `respondents` and `countries`; whether and how it is
/// bad also on `bad_fraction`; and on nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// How many sessions.
    pub rows: u64,
    /// Another seed gives other sessions.
    pub seed: u64,
    /// How the sessions are laid out.
    pub layout: Layout,
    /// The share of bad sessions, 0..=1: each session is bad with this probability, and has exactly one fault. At a higher share
    /// the bad sessions of a lower one are still bad.
    pub bad_fraction: f64,
    /// Who the respondents are.
    pub respondents: Respondents,
    /// How many synthetic countries (`Country 0001` …) there are beside the twelve named ones. If any, half of the respondents are
    /// from these.
    pub countries: u32,
    /// Whether there is a column `team_id` after the attributes: teams of eight respondents.
    pub team_id: bool,
    /// The `session_id` of the first session; the others follow it one by one. At least 1.
    pub first_session_id: u64,
    /// About how many rows a batch has: exactly, but for the last one, in the tables with one row per session; in the long
    /// layout as many as whole sessions (80 rows each when they are not bad) allow, at least one.
    pub batch_rows: NonZeroUsize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            rows: 1_000_000,
            seed: 1,
            layout: Layout::Wide,
            bad_fraction: 0.0,
            respondents: Respondents::Growing,
            countries: 0,
            team_id: false,
            first_session_id: 1,
            batch_rows: crate::generate::BATCH_ROWS,
        }
    }
}

/// The table that a generator gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Sessions(Layout),
    Attributes,
}

/// Generates the sessions of the `klsi-4.0` instrument as batches, in order of `session_id`.
///
/// Batches are independent: [`SessionGenerator::batch`] gives any of them without those before, from any thread, so memory is that
/// of the batches alive. Wide and packed tables open with the attributes `session_id, user_id, completed_at, education_level,
/// country, date_of_birth, gender[, team_id]`, then come the ranks; the long layout has `session_id, part, item, mode, rank`, and
/// its attributes are a table of their own, [`SessionGenerator::attributes`]. Strings travel as dictionaries;
/// [`documented_schema`](crate::model::result::documented_schema) tells the types to write.
///
/// The layouts of one seed describe the same sessions, in so far as they can say what is wrong with the bad ones: a duplicate row,
/// an unknown mode and an unknown item are a repeated or missing rank in the wide and packed layouts, and a repeat has no packed
/// code and is 255 there.
///
/// ```
/// use normstream::generate::{SessionGenerator, SessionOptions};
///
/// let generator = SessionGenerator::new(SessionOptions { rows: 10_000, ..SessionOptions::default() })?;
/// let mut sessions = 0;
/// for batch in generator.batches() {
///     sessions += batch?.num_rows();
/// }
/// assert_eq!(sessions, 10_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SessionGenerator {
    options: SessionOptions,
    table: Table,
    /// Sessions per batch.
    stride: u64,
    /// A session is bad when 32 random bits are below this.
    bad_below: u64,
    attributes: AttributeColumns,
    schema: SchemaRef,
}

impl SessionGenerator {
    /// A generator of the table that the options' layout asks for.
    ///
    /// # Errors
    /// [`GenerateError::BadFraction`] and [`GenerateError::SessionIds`], when the options are out of their bounds.
    pub fn new(options: SessionOptions) -> Result<Self, GenerateError> {
        if !(0.0..=1.0).contains(&options.bad_fraction) {
            return Err(GenerateError::BadFraction { bad_fraction: options.bad_fraction });
        }
        let (first, rows) = (options.first_session_id, options.rows);
        if first == 0 || first.checked_add(rows).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(GenerateError::SessionIds { first, rows });
        }
        let table = Table::Sessions(options.layout);
        Ok(Self::of_table(options, table))
    }

    /// The generator of the per-session columns alone, one row per session: what the long layout leaves out.
    pub fn attributes(&self) -> Self {
        Self::of_table(self.options.clone(), Table::Attributes)
    }

    fn of_table(options: SessionOptions, table: Table) -> Self {
        let attributes = AttributeColumns::new(options.countries, options.team_id);
        let fields = match table {
            Table::Attributes => attributes.fields(),
            Table::Sessions(Layout::Wide) => [attributes.fields(), wide_fields()].concat(),
            Table::Sessions(Layout::Packed) => [attributes.fields(), packed_fields()].concat(),
            Table::Sessions(Layout::Long) => long_fields(),
        };
        let stride = match table {
            Table::Sessions(Layout::Long) => (options.batch_rows.get() / (4 * ITEMS)).max(1),
            _ => options.batch_rows.get(),
        };
        SessionGenerator {
            table,
            stride: stride as u64,
            bad_below: (options.bad_fraction * 2f64.powi(32)).round() as u64,
            attributes,
            schema: Arc::new(Schema::new(fields)),
            options,
        }
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How many batches there are.
    pub fn batch_count(&self) -> u64 {
        self.options.rows.div_ceil(self.stride)
    }

    /// The batches in order.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<'_> {
        (0..self.batch_count()).map(|index| self.batch(index))
    }

    /// The batch of an index below [`SessionGenerator::batch_count`]; past that, an empty batch.
    ///
    /// # Errors
    /// Only if Arrow refuses the arrays, which would be a mistake in this module.
    pub fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError> {
        let rows = self.options.rows;
        let start = index.saturating_mul(self.stride).min(rows);
        let first = self.options.first_session_id;
        let ids = first + start..first + start.saturating_add(self.stride).min(rows);
        let drawn = Drawn::draw(&self.options, self.bad_below, self.table != Table::Attributes, ids);
        let columns = match self.table {
            Table::Attributes => self.attributes.columns(&drawn)?,
            Table::Sessions(Layout::Wide) => [self.attributes.columns(&drawn)?, wide_columns(&drawn)].concat(),
            Table::Sessions(Layout::Packed) => [self.attributes.columns(&drawn)?, packed_columns(&drawn)].concat(),
            Table::Sessions(Layout::Long) => long_columns(&drawn)?,
        };
        RecordBatch::try_new(self.schema(), columns)
    }
}

/// Some sessions as they were drawn, before they are laid out: one entry per session in each vector.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) session_ids: Vec<i64>,
    pub(super) user_ids: Vec<i64>,
    pub(super) team_ids: Vec<i64>,
    /// Microseconds since 1970.
    pub(super) completed_at: Vec<i64>,
    pub(super) respondents: Vec<Respondent>,
    /// Each session's permutation codes, as if none was bad; empty when ranks were not asked for.
    pub(super) codes: Vec<[u8; ITEMS]>,
    /// The bad sessions, by their place in the other vectors, in order.
    pub(super) spoilt: Vec<(usize, Spoilt)>,
}

impl Drawn {
    fn draw(options: &SessionOptions, bad_below: u64, with_ranks: bool, ids: Range<u64>) -> Self {
        let normal = NormalTable::shared();
        let sessions = Streams::new(options.seed, Purpose::Session);
        let respondents = Streams::new(options.seed, Purpose::Respondent);
        let rows = (ids.end - ids.start) as usize;
        let mut drawn = Drawn {
            session_ids: Vec::with_capacity(rows),
            user_ids: Vec::with_capacity(rows),
            team_ids: Vec::with_capacity(rows),
            completed_at: Vec::with_capacity(rows),
            respondents: Vec::with_capacity(rows),
            codes: Vec::with_capacity(if with_ranks { rows } else { 0 }),
            spoilt: Vec::new(),
        };
        for (row, id) in ids.enumerate() {
            // The order of draws is what keeps a session the same under other options: first who and when, then the ranks, and
            // last, for bad sessions alone, what is wrong.
            let mut stream = sessions.at(id);
            let user = 1 + stream.below(match options.respondents {
                Respondents::Growing => id,
                Respondents::Fixed(respondents) => respondents.get(),
            });
            let [moment, bad] = stream.halves();
            let completed = FIRST_COMPLETION + i64::from(super::random::scale_below(moment, COMPLETION_SECONDS));
            let respondent = Respondent::draw(&mut respondents.at(user), options.countries);
            if with_ranks {
                let momentary: [u8; TRAITS] = {
                    let [a, b, c, d, e, f, ..] = stream.bytes();
                    [a, b, c, d, e, f]
                };
                let shift = respondent.shift((completed / 86_400) as i32);
                let preference = Preference::new(normal, shift, respondent.traits, momentary);
                drawn.codes.push(preference.rank(normal, &mut stream));
                if u64::from(bad) < bad_below {
                    drawn.spoilt.push((row, Spoilt::draw(&mut stream)));
                }
            }
            drawn.session_ids.push(id as i64);
            drawn.user_ids.push(user as i64);
            drawn.team_ids.push(((user - 1) / TEAM_SIZE + 1) as i64);
            drawn.completed_at.push(completed * 1_000_000);
            drawn.respondents.push(respondent);
        }
        drawn
    }
}
