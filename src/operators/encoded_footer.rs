//! The footer of a Parquet file as it is encoded, cut at its row groups.
//!
//! The Parquet library decodes and encodes footers whole, and decoded they need some 500 bytes and more for each column of each row
//! group: for a file of a hundred million sessions more memory than scoring does. Cut, a footer is decoded a row group at a time,
//! kept encoded, and put together again.
//!
//! A footer is the struct `FileMetaData` of
//! [parquet.thrift](https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift) in Thrift's
//! [compact protocol](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). Here only the ends of
//! things are found; what they mean is for the library.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{
    FileMetaData, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::SchemaDescPtr;

/// The field of `FileMetaData` that tells how many rows there are.
const ROWS: i16 = 3;
/// The one that lists the row groups.
const ROW_GROUPS: i16 = 4;
/// How deep structs and lists may lie within each other. Those of a footer do so to a depth of seven.
const DEPTH: usize = 32;

/// An encoded footer, without its length and the magic number.
#[derive(Debug)]
pub(crate) struct EncodedFooter {
    /// What comes before the number of rows.
    head: Bytes,
    /// What comes between it and the list of row groups.
    middle: Bytes,
    row_groups: Vec<Bytes>,
    /// What comes after the list.
    tail: Bytes,
}

impl EncodedFooter {
    /// Cuts a footer, which comes in blocks. Fails where it is none, or not whole.
    pub(crate) fn cut(blocks: &[Bytes]) -> Result<EncodedFooter> {
        let mut reader = CompactReader { blocks, block: &[], at: 0 };
        let (mut field, mut rows) = (0, None);
        let kind = loop {
            let kind = reader.field(&mut field)?;
            if field == ROW_GROUPS || kind == STOP {
                break kind;
            }
            let from = reader.at;
            reader.skip(kind, DEPTH)?;
            if field == ROWS {
                rows = Some(from..reader.at);
            }
        };
        let (Some(rows), LIST) = (rows, kind) else {
            return Err(ParquetError::General("the footer has no number of rows and list of row groups".to_owned()));
        };
        let (head, middle) = (slice(blocks, 0..rows.start), slice(blocks, rows.end..reader.at));
        let (kind, count) = reader.list()?;
        if kind != STRUCT && count > 0 {
            return Err(ParquetError::General("what the footer lists as row groups are none".to_owned()));
        }
        let mut row_groups = Vec::new();
        for _ in 0..count {
            let from = reader.at;
            reader.skip_element(kind, DEPTH)?;
            row_groups.push(slice(blocks, from..reader.at));
        }
        Ok(EncodedFooter { head, middle, row_groups, tail: slice(blocks, reader.at..usize::MAX) })
    }

    /// Encodes the footer of a file, and the page index that stands before it. What the footer says of the places of the page index is
    /// counted from the beginning of that. Of the names of columns it can do without those that are told with each row group.
    pub(crate) fn encode(metadata: &ParquetMetaData, with_names: bool) -> Result<(Bytes, EncodedFooter)> {
        let mut encoded = Vec::new();
        ParquetMetaDataWriter::new(&mut encoded, metadata).with_write_path_in_schema(with_names).finish()?;
        let mut page_index = Bytes::from(encoded);
        let mut end = page_index.split_off(page_index.len() - FOOTER_SIZE);
        let footer = page_index.split_off(page_index.len() - end.get_u32_le() as usize);
        Ok((page_index, EncodedFooter::cut(&[footer])?))
    }

    /// The row groups, in file order.
    pub(crate) fn row_groups(&self) -> &[Bytes] {
        &self.row_groups
    }

    /// The encoded footer with other row groups: `count` of them, of `rows` rows in all, one after the other in `row_groups`.
    pub(crate) fn with(&self, rows: i64, count: usize, row_groups: &[u8]) -> Vec<u8> {
        let mut encoded = self.head(rows, count);
        encoded.extend_from_slice(row_groups);
        encoded.extend_from_slice(&self.tail);
        encoded
    }

    /// What comes before the row groups where there are `count` of them, of `rows` rows in all.
    pub(crate) fn head(&self, rows: i64, count: usize) -> Vec<u8> {
        let mut encoded = self.head.to_vec();
        write_varint(&mut encoded, (rows << 1 ^ rows >> 63) as u64);
        encoded.extend_from_slice(&self.middle);
        write_list_of_structs(&mut encoded, count);
        encoded
    }

    /// What comes after the row groups.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }
}

/// Row groups of files of one schema, encoded as footers list them but without the names of their columns.
pub(crate) struct RowGroupCodec {
    schema: SchemaDescPtr,
    /// A footer of no row groups.
    footer: EncodedFooter,
}

impl RowGroupCodec {
    pub(crate) fn new(schema: SchemaDescPtr) -> Result<RowGroupCodec> {
        let footer = footer_of(&schema, Vec::new())?;
        Ok(RowGroupCodec { schema, footer })
    }

    /// The schema of the files.
    pub(crate) fn schema(&self) -> &SchemaDescPtr {
        &self.schema
    }

    /// Encodes row groups, one after the other.
    pub(crate) fn encode(&self, row_groups: Vec<RowGroupMetaData>) -> Result<Vec<u8>> {
        Ok(footer_of(&self.schema, row_groups)?.row_groups().concat())
    }

    /// Decodes `count` row groups that stand one after the other, as a file of `rows` rows.
    pub(crate) fn decode(&self, rows: i64, count: usize, encoded: &[u8]) -> Result<ParquetMetaData> {
        let options =
            ParquetMetaDataOptions::new().with_schema(Arc::clone(&self.schema)).with_encoding_stats_as_mask(false);
        ParquetMetaDataReader::decode_metadata_with_options(&self.footer.with(rows, count, encoded), Some(&options))
    }
}

/// The footer of a file that has a schema and row groups, and tells nothing else.
fn footer_of(schema: &SchemaDescPtr, row_groups: Vec<RowGroupMetaData>) -> Result<EncodedFooter> {
    let file = FileMetaData::new(1, 0, None, None, Arc::clone(schema), None);
    let metadata = ParquetMetaDataBuilder::new(file).set_row_groups(row_groups).build();
    Ok(EncodedFooter::encode(&metadata, false)?.1)
}

// Kinds of values, as fields and lists name them. The two first ones are a field's whole value; in a list a boolean has a byte.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Some of the bytes that come in blocks; those that lie in one block are not copied.
fn slice(blocks: &[Bytes], range: Range<usize>) -> Bytes {
    let mut start = 0;
    let within = blocks.iter().map(|block| {
        let from = range.start.clamp(start, start + block.len()) - start;
        let to = range.end.clamp(start, start + block.len()) - start;
        start += block.len();
        block.slice(from..to)
    });
    let mut pieces: Vec<Bytes> = within.filter(|piece| !piece.is_empty()).collect();
    match pieces.len() {
        0 | 1 => pieces.pop().unwrap_or_default(),
        _ => pieces.concat().into(),
    }
}

/// Finds where values end.
struct CompactReader<'a> {
    /// The blocks after that which is read.
    blocks: &'a [Bytes],
    /// What is left of the block that is read.
    block: &'a [u8],
    /// How many bytes of all blocks have been read.
    at: usize,
}

impl CompactReader<'_> {
    fn byte(&mut self) -> Result<u8> {
        while self.block.is_empty() {
            self.next_block()?;
        }
        let byte = self.block[0];
        (self.block, self.at) = (&self.block[1..], self.at + 1);
        Ok(byte)
    }

    fn pass(&mut self, bytes: u64) -> Result<()> {
        let mut left = bytes;
        while left > self.block.len() as u64 {
            left -= self.block.len() as u64;
            self.at += self.block.len();
            self.next_block()?;
        }
        (self.block, self.at) = (&self.block[left as usize..], self.at + left as usize);
        Ok(())
    }

    fn next_block(&mut self) -> Result<()> {
        let (block, blocks) = self.blocks.split_first().ok_or_else(ends_early)?;
        (self.block, self.blocks) = (block, blocks);
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ParquetError::General("the footer has a number of more than 64 bits".to_owned()))
    }

    /// The kind of the next field of a struct; `field`, its number, is that of the field before.
    fn field(&mut self, field: &mut i16) -> Result<u8> {
        let header = self.byte()?;
        *field = match header {
            STOP => *field,
            _ if header >> 4 != 0 => field.wrapping_add(i16::from(header >> 4)),
            _ => {
                let zigzag = self.varint()?;
                ((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)) as i16
            }
        };
        Ok(header & 0x0f)
    }

    /// The kind and the number of the elements that follow.
    fn list(&mut self) -> Result<(u8, u64)> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((header & 0x0f, count))
    }

    fn skip_element(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            TRUE | FALSE => self.pass(1),
            _ => self.skip(kind, depth),
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(ParquetError::General(format!("the footer is more than {DEPTH} levels deep")));
        };
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | SET => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, depth))
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0x0f, depth)
                })
            }
            STRUCT => {
                let mut field = 0;
                loop {
                    match self.field(&mut field)? {
                        STOP => return Ok(()),
                        kind => self.skip(kind, depth)?,
                    }
                }
            }
            kind => Err(ParquetError::General(format!("the footer has a value of unknown kind {kind}"))),
        }
    }
}

fn write_list_of_structs(encoded: &mut Vec<u8>, count: usize) {
    if count < 15 {
        encoded.push((count as u8) << 4 | STRUCT);
    } else {
        encoded.push(15 << 4 | STRUCT);
        write_varint(encoded, count as u64);
    }
}

fn write_varint(encoded: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
}

fn ends_early() -> ParquetError {
    ParquetError::EOF("the footer ends within a value".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    /// The footer of a file of so many row groups of one row, statistics and key-value metadata and all.
    fn footer(row_groups: usize) -> Bytes {
        let rows = row_groups.max(1);
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row * 1_000_003)))),
            (
                "user",
                Arc::new(StringArray::from_iter((0..rows).map(|row| (row % 3 > 0).then(|| format!("user {row}"))))),
            ),
            ("passed", Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(row % 2 == 0))))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new("k".to_owned(), "v".repeat(300))]))
            .set_max_row_group_row_count(Some(1))
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch.slice(0, row_groups)).unwrap();
        writer.close().unwrap();
        let file = Bytes::from(file);
        let end = file.len() - FOOTER_SIZE;
        let length = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
        file.slice(end - length..end)
    }

    fn cut(encoded: &[u8]) -> Result<EncodedFooter> {
        EncodedFooter::cut(&[Bytes::copy_from_slice(encoded)])
    }

    fn decode(encoded: &[u8]) -> ParquetMetaData {
        ParquetMetaDataReader::decode_metadata(encoded).unwrap()
    }

    #[test]
    fn a_footer_put_together_of_its_own_row_groups_is_the_same() {
        for row_groups in [0, 1, 14, 15, 16, 127, 128, 300] {
            let encoded = footer(row_groups);
            let cut = cut(&encoded).unwrap();
            assert_eq!(cut.row_groups().len(), row_groups);
            assert_eq!(cut.with(row_groups as i64, row_groups, &cut.row_groups().concat()), encoded);
        }
    }

    #[test]
    fn a_footer_in_blocks_is_cut_at_the_same_places() {
        let encoded = footer(15);
        let whole = cut(&encoded).unwrap();
        for length in [1, 2, 3, 5, 64, 1_000, encoded.len(), encoded.len() + 1] {
            let blocks: Vec<Bytes> = encoded.chunks(length).map(Bytes::copy_from_slice).collect();
            let cut = EncodedFooter::cut(&blocks).unwrap();
            assert_eq!(cut.row_groups(), whole.row_groups(), "blocks of {length}");
            assert_eq!(cut.with(15, 15, &cut.row_groups().concat()), encoded, "blocks of {length}");
            let within_row_groups = (encoded.len() - whole.tail().len() - 1) / length;
            let error = EncodedFooter::cut(&blocks[..within_row_groups]).unwrap_err();
            assert_eq!(error.to_string(), "EOF: the footer ends within a value", "blocks of {length}");
        }
    }

    #[test]
    fn a_footer_of_some_row_groups_says_of_them_what_the_whole_says() {
        let encoded = footer(20);
        let (whole, cut) = (decode(&encoded), cut(&encoded).unwrap());
        let some = decode(&cut.with(2, 2, &cut.row_groups()[7..9].concat()));
        assert_eq!(some.row_groups(), &whole.row_groups()[7..9]);
        assert_eq!(some.file_metadata().num_rows(), 2);
        assert_eq!(some.file_metadata().key_value_metadata(), whole.file_metadata().key_value_metadata());
        assert_eq!(decode(&cut.with(i64::MAX, 0, &[])).file_metadata().num_rows(), i64::MAX);
    }

    #[test]
    fn a_footer_cut_short_within_its_row_groups_is_refused() {
        let encoded = footer(3);
        let tail = cut(&encoded).unwrap().tail.len();
        for length in 0..encoded.len() - tail {
            let error = cut(&encoded.slice(..length)).unwrap_err();
            assert_eq!(error.to_string(), "EOF: the footer ends within a value", "{length} of {} bytes", encoded.len());
        }
    }

    #[test]
    fn what_is_no_footer_is_refused() {
        let refused = |bytes: &[u8]| cut(bytes).unwrap_err().to_string();
        assert_eq!(refused(&[STOP]), "Parquet error: the footer has no number of rows and list of row groups");
        assert_eq!(
            refused(&[4 << 4 | I32, 0]),
            "Parquet error: the footer has no number of rows and list of row groups"
        );
        let rows_and_list_of_numbers = [3 << 4 | I64, 2, 1 << 4 | LIST, 1 << 4 | I32, 0, STOP];
        assert_eq!(refused(&rows_and_list_of_numbers), "Parquet error: what the footer lists as row groups are none");
        assert_eq!(refused(&[1 << 4 | 14, 0]), "Parquet error: the footer has a value of unknown kind 14");
        assert_eq!(refused(&[1 << 4 | STRUCT; 40]), "Parquet error: the footer is more than 32 levels deep");
        assert_eq!(
            refused(&[[1 << 4 | I64].as_slice(), &[0xff; 10]].concat()),
            "Parquet error: the footer has a number of more than 64 bits"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = cut(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut damaged = footer(2).to_vec();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let _ = cut(&damaged);
        }
    }
}
