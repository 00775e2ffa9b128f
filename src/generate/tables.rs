//! Drawn sessions as Arrow columns: the attributes, and the ranks in each layout.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBufferBuilder, Date32Array, DictionaryArray, Int16Array, Int64Array, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::error::ArrowError;

use crate::generate::preference::{CONTEXTS, ITEMS, STYLE_ITEMS};
use crate::generate::respondent::{COUNTRIES, EDUCATION_LEVELS, GENDERS, country};
use crate::generate::sessions::Drawn;
use crate::generate::spoil::{Defect, Spoilt};
use crate::model::Mode;
use crate::model::permutation::RANKS;
use crate::model::result::dictionary_type;
use crate::model::session::{
    COMPLETED_AT, COUNTRY, DATE_OF_BIRTH, EDUCATION_LEVEL, GENDER, ITEM, MODE, PART, Part, RANK, SESSION_ID, USER_ID,
    items, packed_column, wide_column,
};

/// Name of the column with the respondent's team; an attribute that scoring passes through.
const TEAM_ID: &str = "team_id";
/// A mode that does not exist.
const UNKNOWN_MODE: &str = "XX";

/// The per-session columns, with the strings that they share.
#[derive(Debug, Clone)]
pub(super) struct AttributeColumns {
    education_levels: ArrayRef,
    countries: ArrayRef,
    genders: ArrayRef,
    team_id: bool,
}

impl AttributeColumns {
    pub(super) fn new(synthetic_countries: u32, team_id: bool) -> Self {
        let countries = (0..COUNTRIES.len() + synthetic_countries as usize).map(country);
        AttributeColumns {
            education_levels: Arc::new(StringArray::from_iter_values(EDUCATION_LEVELS)),
            countries: Arc::new(StringArray::from_iter_values(countries)),
            genders: Arc::new(StringArray::from_iter_values(GENDERS)),
            team_id,
        }
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        let countries = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
        let mut fields = vec![
            Field::new(SESSION_ID, DataType::Int64, false),
            Field::new(USER_ID, DataType::Int64, true),
            Field::new(COMPLETED_AT, DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new(EDUCATION_LEVEL, dictionary_type(), true),
            Field::new(COUNTRY, countries, true),
            Field::new(DATE_OF_BIRTH, DataType::Date32, true),
            Field::new(GENDER, dictionary_type(), true),
        ];
        if self.team_id {
            fields.push(Field::new(TEAM_ID, DataType::Int64, true));
        }
        fields
    }

    pub(super) fn columns(&self, drawn: &Drawn) -> Result<Vec<ArrayRef>, ArrowError> {
        let respondents = || drawn.respondents.iter();
        let education: UInt8Array = respondents().map(|respondent| respondent.education).collect();
        let country: UInt32Array = respondents().map(|respondent| respondent.country).collect();
        let date_of_birth: Date32Array = respondents().map(|respondent| respondent.date_of_birth).collect();
        let gender: UInt8Array = respondents().map(|respondent| respondent.gender).collect();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(drawn.session_ids.clone())),
            Arc::new(Int64Array::from(drawn.user_ids.clone())),
            Arc::new(TimestampMicrosecondArray::from(drawn.completed_at.clone())),
            Arc::new(DictionaryArray::try_new(education, Arc::clone(&self.education_levels))?),
            Arc::new(DictionaryArray::try_new(country, Arc::clone(&self.countries))?),
            Arc::new(date_of_birth),
            Arc::new(DictionaryArray::try_new(gender, Arc::clone(&self.genders))?),
        ];
        if self.team_id {
            columns.push(Arc::new(Int64Array::from(drawn.team_ids.clone())));
        }
        Ok(columns)
    }
}

/// The items in the order in which their codes are drawn.
fn all_items() -> impl Iterator<Item = (Part, usize)> {
    items(STYLE_ITEMS, CONTEXTS)
}

pub(super) fn wide_fields() -> Vec<Field> {
    let names = all_items().flat_map(|(part, item)| Mode::ALL.map(|mode| wide_column(part, item, mode)));
    names.map(|name| Field::new(name, DataType::UInt8, true)).collect()
}

pub(super) fn wide_columns(drawn: &Drawn) -> Vec<ArrayRef> {
    let mut columns = Vec::with_capacity(4 * ITEMS);
    for item in 0..ITEMS {
        for mode in Mode::ALL.map(|mode| mode as usize) {
            let ranks = drawn.codes.iter().map(|codes| RANKS[usize::from(codes[item])][mode]).collect();
            let spoilt = spoilt_in(drawn, item).filter(|(_, spoilt)| spoilt.mode == mode);
            let spoilt =
                spoilt.map(|(row, spoilt)| (row, spoilt.wide_rank(RANKS[usize::from(drawn.codes[row][item])])));
            columns.push(byte_column(ranks, spoilt));
        }
    }
    columns
}

pub(super) fn packed_fields() -> Vec<Field> {
    all_items().map(|(part, item)| Field::new(packed_column(part, item), DataType::UInt8, true)).collect()
}

pub(super) fn packed_columns(drawn: &Drawn) -> Vec<ArrayRef> {
    let column = |item: usize| {
        let codes = drawn.codes.iter().map(|codes| codes[item]).collect();
        byte_column(codes, spoilt_in(drawn, item).map(|(row, spoilt)| (row, spoilt.packed_code())))
    };
    (0..ITEMS).map(column).collect()
}

/// The sessions that are spoilt in an item.
fn spoilt_in(drawn: &Drawn, item: usize) -> impl Iterator<Item = (usize, Spoilt)> {
    drawn.spoilt.iter().copied().filter(move |(_, spoilt)| spoilt.item == item)
}

/// A column of bytes, some of which are replaced.
fn byte_column(mut values: Vec<u8>, replaced: impl Iterator<Item = (usize, Option<u8>)>) -> ArrayRef {
    let mut nulls = Vec::new();
    for (row, value) in replaced {
        match value {
            Some(value) => values[row] = value,
            None => nulls.push(row),
        }
    }
    let validity = validity(values.len(), &nulls);
    Arc::new(UInt8Array::new(values.into(), validity))
}

/// The validity of a column with nulls in some rows; none without nulls.
fn validity(rows: usize, nulls: &[usize]) -> Option<NullBuffer> {
    if nulls.is_empty() {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(rows);
    valid.append_n(rows, true);
    nulls.iter().for_each(|&row| valid.set_bit(row, false));
    Some(NullBuffer::new(valid.finish()))
}

pub(super) fn long_fields() -> Vec<Field> {
    vec![
        Field::new(SESSION_ID, DataType::Int64, false),
        Field::new(PART, dictionary_type(), false),
        Field::new(ITEM, DataType::Int16, false),
        Field::new(MODE, dictionary_type(), false),
        Field::new(RANK, DataType::UInt8, true),
    ]
}

pub(super) fn long_columns(drawn: &Drawn) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut rows = LongRows::with_capacity(4 * ITEMS * drawn.session_ids.len());
    let mut spoilt = drawn.spoilt.iter().peekable();
    for (row, (&session_id, codes)) in drawn.session_ids.iter().zip(&drawn.codes).enumerate() {
        let spoilt = spoilt.next_if(|(spoilt_row, _)| *spoilt_row == row).map(|(_, spoilt)| spoilt);
        for (index, (part, item)) in all_items().enumerate() {
            let ranks = RANKS[usize::from(codes[index])];
            match spoilt.filter(|spoilt| spoilt.item == index) {
                None => rows.push_item(session_id, part, item, ranks),
                Some(spoilt) => rows.push_spoilt_item(session_id, part, item, ranks, spoilt),
            }
        }
    }
    rows.into_columns()
}

/// Rows of the long layout. Parts and modes are indexes; the mode after the last is the one that does not exist.
#[derive(Debug)]
struct LongRows {
    session_ids: Vec<i64>,
    parts: Vec<u8>,
    items: Vec<i16>,
    modes: Vec<u8>,
    ranks: Vec<u8>,
    nulls: Vec<usize>,
}

impl LongRows {
    fn with_capacity(rows: usize) -> Self {
        LongRows {
            session_ids: Vec::with_capacity(rows),
            parts: Vec::with_capacity(rows),
            items: Vec::with_capacity(rows),
            modes: Vec::with_capacity(rows),
            ranks: Vec::with_capacity(rows),
            nulls: Vec::new(),
        }
    }

    fn push_item(&mut self, session_id: i64, part: Part, item: usize, ranks: [u8; 4]) {
        for (mode, rank) in ranks.into_iter().enumerate() {
            self.push(session_id, part, item, mode, Some(rank));
        }
    }

    /// The four rows of an item and what is wrong: a changed row, or one less, or one more at their end.
    fn push_spoilt_item(&mut self, session_id: i64, part: Part, item: usize, ranks: [u8; 4], spoilt: &Spoilt) {
        for (mode, rank) in ranks.into_iter().enumerate() {
            let rank = match spoilt.defect {
                _ if mode != spoilt.mode => Some(rank),
                Defect::AbsentRow => continue,
                Defect::MissingRank | Defect::RankOutOfRange(_) | Defect::RepeatedRank => spoilt.wide_rank(ranks),
                Defect::DuplicateRow | Defect::UnknownMode | Defect::UnknownItem => Some(rank),
            };
            self.push(session_id, part, item, mode, rank);
        }
        let rank = Some(spoilt.other_rank(ranks));
        match spoilt.defect {
            Defect::DuplicateRow => self.push(session_id, part, item, spoilt.mode, rank),
            Defect::UnknownMode => self.push(session_id, part, item, Mode::ALL.len(), rank),
            Defect::UnknownItem => {
                let unknown = 1 + if part == Part::Style { STYLE_ITEMS } else { CONTEXTS };
                self.push(session_id, part, unknown, spoilt.mode, rank);
            }
            Defect::MissingRank | Defect::AbsentRow | Defect::RankOutOfRange(_) | Defect::RepeatedRank => {}
        }
    }

    fn push(&mut self, session_id: i64, part: Part, item: usize, mode: usize, rank: Option<u8>) {
        if rank.is_none() {
            self.nulls.push(self.ranks.len());
        }
        self.session_ids.push(session_id);
        self.parts.push(part as u8);
        self.items.push(item as i16);
        self.modes.push(mode as u8);
        self.ranks.push(rank.unwrap_or_default());
    }

    fn into_columns(self) -> Result<Vec<ArrayRef>, ArrowError> {
        let parts = StringArray::from_iter_values([Part::Style, Part::Context].map(Part::name));
        let modes = StringArray::from_iter_values(Mode::ALL.iter().map(|mode| mode.code()).chain([UNKNOWN_MODE]));
        let validity = validity(self.ranks.len(), &self.nulls);
        Ok(vec![
            Arc::new(Int64Array::from(self.session_ids)),
            Arc::new(DictionaryArray::try_new(UInt8Array::from(self.parts), Arc::new(parts))?),
            Arc::new(Int16Array::from(self.items)),
            Arc::new(DictionaryArray::try_new(UInt8Array::from(self.modes), Arc::new(modes))?),
            Arc::new(UInt8Array::new(self.ranks.into(), validity)),
        ])
    }
}
