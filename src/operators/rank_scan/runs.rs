//! Reads Parquet's hybrid of run lengths and bit packing, in which levels and dictionary keys are stored.

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};

/// A sequence of unsigned values of one width, read run by run.
pub(super) struct Runs {
    bytes: Bytes,
    /// Where the next group of the run at work begins, or the next run.
    at: usize,
    width: usize,
    /// Values left of the run at work.
    left: usize,
    /// What the run at work repeats; `None` if it is packed.
    repeated: Option<u32>,
    /// Values of the group at `at` that were read.
    taken: usize,
}

/// Values that come next in a sequence.
pub(super) enum Piece<'a> {
    /// One value, `count` times.
    Repeated { value: u32, count: usize },
    /// `count` values, behind `skip` others of the first group. Groups are of eight, each value behind the one before it, lowest
    /// bit first. The last group may be cut short, and what it lacks is zero.
    Packed { groups: &'a [u8], skip: usize, count: usize },
}

impl Runs {
    /// The values that `bytes` begins with, each of `width` bits.
    pub(super) fn new(bytes: Bytes, width: usize) -> Result<Self> {
        if width > u32::BITS as usize {
            return Err(ParquetError::General(format!("dictionary keys of {width} bits")));
        }
        Ok(Runs { bytes, at: 0, width, left: 0, repeated: None, taken: 0 })
    }

    /// The bits of a value.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The next values, at least one and at most `most`, which is not zero.
    pub(super) fn next(&mut self, most: usize) -> Result<Piece<'_>> {
        if self.width == 0 {
            return Ok(Piece::Repeated { value: 0, count: most });
        }
        while self.left == 0 {
            self.next_run()?;
        }
        let count = most.min(self.left);
        self.left -= count;
        if let Some(value) = self.repeated {
            return Ok(Piece::Repeated { value, count });
        }
        let (skip, end) = (self.taken, self.taken + count);
        let groups = self.at..self.bytes.len().min(self.at + end.div_ceil(8) * self.width);
        self.at += end / 8 * self.width;
        self.taken = end % 8;
        Ok(Piece::Packed { groups: &self.bytes[groups], skip, count })
    }

    fn next_run(&mut self) -> Result<()> {
        let header = self.varint()?;
        let (length, packed) = (header >> 1, header & 1 == 1);
        let rest = self.bytes.len() - self.at;
        let ends_early = if packed {
            // Some writers leave out the end of the last group.
            length.saturating_sub(1).saturating_mul(self.width) > rest
        } else {
            self.width.div_ceil(8) > rest
        };
        if ends_early {
            return Err(ends_within_a_run());
        }
        self.taken = 0;
        if packed {
            self.left = 8 * length;
            self.repeated = None;
        } else {
            let mut value = [0; 4];
            let size = self.width.div_ceil(8);
            value[..size].copy_from_slice(&self.bytes[self.at..self.at + size]);
            self.at += size;
            self.left = length;
            self.repeated = Some(u32::from_le_bytes(value));
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(ends_within_a_run)?;
            self.at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ParquetError::General("the length of a run has no end".to_owned()))
    }
}

fn ends_within_a_run() -> ParquetError {
    ParquetError::EOF("a page of ranks ends within a run".to_owned())
}
