//! Parquet's hybrid of run lengths and bit packing, as levels and dictionary keys are stored: a sequence of runs, each of
//! one repeated value or of values packed in groups of eight. Here a sequence is one run: repeated if all values are equal,
//! packed otherwise.

/// The bits that the values `0..=max` need; at least one, since a width of zero is read differently by readers.
pub(super) fn bit_width(max: usize) -> usize {
    (usize::BITS - max.leading_zeros()).max(1) as usize
}

/// Appends a run of `count` times `value`.
pub(super) fn put_repeated(value: u32, count: usize, width: usize, out: &mut Vec<u8>) {
    if count > 0 {
        put_varint((count as u64) << 1, out);
        out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8)]);
    }
}

/// Appends a run of `count` one-bit values, the lowest bit of each byte first. Bits past `count` are ignored by readers.
pub(super) fn put_bits(bytes: &[u8], count: usize, out: &mut Vec<u8>) {
    put_packed_header(count, out);
    out.extend_from_slice(&bytes[..count.div_ceil(8)]);
}

/// The same for bits in words, the lowest bit of each first.
pub(super) fn put_words(words: &[u64], count: usize, out: &mut Vec<u8>) {
    put_packed_header(count, out);
    let end = out.len() + count.div_ceil(8);
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.truncate(end);
}

/// Appends `values` as one run. Each is below `2^width`.
pub(super) fn put_values<T: Copy + PartialEq + Into<u32>>(values: &[T], width: usize, out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        put_repeated((*first).into(), values.len(), width, out);
    } else {
        put_packed_header(values.len(), out);
        pack(values, width, out);
    }
}

fn put_packed_header(count: usize, out: &mut Vec<u8>) {
    put_varint((count.div_ceil(8) as u64) << 1 | 1, out);
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `values` packed to `width` bits each, the last group of eight filled with zeros.
fn pack<T: Copy + Into<u32>>(values: &[T], width: usize, out: &mut Vec<u8>) {
    macro_rules! dispatch {
        ($($narrow:literal)*; $($wide:literal)*) => {
            match width {
                $($narrow => pack_groups::<T, $narrow, 8>(values, out, |group| pack_narrow::<$narrow>(group)),)*
                $($wide => pack_groups::<T, $wide, 16>(values, out, |group| pack_wide::<$wide>(group)),)*
                _ => pack_any(values, width, out),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8; 9 10 11 12 13 14 15 16);
}

/// Packs groups of eight values into `WIDTH` bytes each. `pack_group` gives `SLOT >= WIDTH` bytes, of which the next group
/// overwrites those past `WIDTH`.
fn pack_groups<T: Copy + Into<u32>, const WIDTH: usize, const SLOT: usize>(
    values: &[T],
    out: &mut Vec<u8>,
    pack_group: impl Fn([u32; 8]) -> [u8; SLOT],
) {
    let start = out.len();
    let end = start + values.len().div_ceil(8) * WIDTH;
    out.resize(end + SLOT - WIDTH, 0);
    let mut slots = &mut out[start..];
    let (groups, rest) = values.as_chunks::<8>();
    for group in groups {
        slots[..SLOT].copy_from_slice(&pack_group(group.map(Into::into)));
        slots = &mut slots[WIDTH..];
    }
    if !rest.is_empty() {
        let mut group = [0; 8];
        for (slot, value) in group.iter_mut().zip(rest) {
            *slot = (*value).into();
        }
        slots[..SLOT].copy_from_slice(&pack_group(group));
    }
    out.truncate(end);
}

#[inline(always)]
fn pack_narrow<const WIDTH: usize>(group: [u32; 8]) -> [u8; 8] {
    let mut word = 0_u64;
    for (place, value) in group.into_iter().enumerate() {
        word |= u64::from(value) << (place * WIDTH);
    }
    word.to_le_bytes()
}

#[inline(always)]
fn pack_wide<const WIDTH: usize>(group: [u32; 8]) -> [u8; 16] {
    let mut word = 0_u128;
    for (place, value) in group.into_iter().enumerate() {
        word |= u128::from(value) << (place * WIDTH);
    }
    word.to_le_bytes()
}

/// The way of widths above 16, which no column of results has.
fn pack_any<T: Copy + Into<u32>>(values: &[T], width: usize, out: &mut Vec<u8>) {
    let end = out.len() + values.len().div_ceil(8) * width;
    let (mut word, mut filled) = (0_u64, 0);
    for value in values {
        word |= u64::from((*value).into()) << filled;
        filled += width;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads one run back, bit by bit.
    fn unpack(mut bytes: &[u8], width: usize, count: usize) -> Vec<u32> {
        let (mut header, mut shift) = (0_u64, 0);
        loop {
            let byte = bytes[0];
            bytes = &bytes[1..];
            header |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
        if header & 1 == 0 {
            assert_eq!(header >> 1, count as u64);
            assert_eq!(bytes.len(), width.div_ceil(8));
            let value = (0..width).map(|place| bit(place) << place).sum();
            vec![value; count]
        } else {
            assert_eq!((header >> 1) as usize, count.div_ceil(8));
            assert_eq!(bytes.len(), count.div_ceil(8) * width);
            (0..count).map(|at| (0..width).map(|place| bit(at * width + place) << place).sum()).collect()
        }
    }

    #[test]
    fn the_width_of_a_single_key_is_one_bit() {
        assert_eq!([0, 1, 2, 3, 4, 255, 256].map(bit_width), [1, 1, 2, 2, 3, 8, 9]);
    }

    #[test]
    fn equal_values_are_one_repeated_run() {
        let mut out = Vec::new();
        put_values(&[300_u32; 1000], 9, &mut out);
        assert_eq!(out, [0xd0, 0x0f, 0x2c, 0x01]);
    }

    proptest! {
        #[test]
        fn packed_values_read_back_at_every_width(width in 1_usize..=32, values in prop::collection::vec(any::<u32>(), 0..70)) {
            let values = values.into_iter().map(|value| value >> (32 - width)).collect::<Vec<_>>();
            let mut out = Vec::new();
            put_values(&values, width, &mut out);
            if values.is_empty() {
                prop_assert!(out.is_empty());
            } else {
                prop_assert_eq!(unpack(&out, width, values.len()), values);
            }
        }
    }
}
