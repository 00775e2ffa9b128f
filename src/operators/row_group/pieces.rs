//! Bytes in the pieces in which they were written: what is there is not moved when more comes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

/// The bytes of a column chunk, each write a piece.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Bytes>);

/// Reads pieces to their end.
pub(super) struct PiecesReader(VecDeque<Bytes>);

impl Pieces {
    /// Appends pieces.
    pub(super) fn append(&mut self, mut after: Pieces) {
        self.0.append(&mut after.0);
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PiecesReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            if piece.is_empty() {
                self.0.pop_front();
                continue;
            }
            let length = piece.len().min(into.len());
            piece.copy_to_slice(&mut into[..length]);
            return Ok(length);
        }
        Ok(0)
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl ChunkReader for Pieces {
    type T = PiecesReader;

    fn get_read(&self, start: u64) -> ParquetResult<PiecesReader> {
        let mut reader = PiecesReader(self.0.iter().cloned().collect());
        io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
        Ok(reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_are_read_as_one_from_anywhere() {
        let (mut pieces, mut after) = (Pieces::default(), Pieces::default());
        for piece in [&b"ab"[..], b"", b"cdef"] {
            assert_eq!(pieces.write(piece).unwrap(), piece.len());
        }
        after.write_all(b"g").unwrap();
        pieces.append(after);
        assert_eq!(pieces.len(), 7);
        for start in 0..=7 {
            let mut read = String::new();
            pieces.get_read(start).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, &"abcdefg"[start as usize..]);
        }
        assert_eq!(pieces.get_bytes(1, 4).unwrap(), "bcde");
        assert!(pieces.get_bytes(4, 4).is_err(), "there are three more");
    }
}
