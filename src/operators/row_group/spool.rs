//! Bytes that are kept until a file ends, in memory while they are few.

use std::io::{self, Read, Seek, Write};

use tempfile::SpooledTempFile;

/// How many bytes are kept in memory; more are in a temporary file, which has no name and so is gone with the process.
const IN_MEMORY: usize = 256 << 10;

/// Pieces of bytes, to be read back in the order in which they were written.
pub(super) struct Spool {
    bytes: SpooledTempFile,
    lengths: Vec<usize>,
}

impl Default for Spool {
    fn default() -> Self {
        Self { bytes: SpooledTempFile::new(IN_MEMORY), lengths: Vec::new() }
    }
}

impl Spool {
    /// How many pieces there are.
    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// The length of a piece in bytes.
    pub(super) fn length(&self, number: usize) -> usize {
        self.lengths[number]
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.lengths.push(piece.len());
        self.bytes.write_all(piece)
    }

    /// Goes to the first piece.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.bytes.rewind()
    }

    /// Reads the next piece, which is that of this number.
    pub(super) fn read(&mut self, number: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; self.lengths[number]];
        self.bytes.read_exact(&mut piece)?;
        Ok(piece)
    }
}
