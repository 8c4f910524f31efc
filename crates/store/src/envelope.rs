//! How an attempt's record and its small outputs lie in one value of one row.
//!
//! Version 1: byte 1; `u32` length and the record; then for each content a `u32` length
//! and its bytes. All numbers little-endian. A row without a report (a lost attempt) is empty.

/// The version that [`Envelope::encode`] writes.
const VERSION: u8 = 1;

/// An attempt's record and the small contents that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `AttemptRecord` as the agent wrote it.
    pub record: &'a [u8],
    /// Contents of small outputs; the record names them by digest.
    pub inline: Vec<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    /// Packs a record and its contents.
    #[must_use]
    pub fn encode<C: AsRef<[u8]>>(record: &[u8], inline: &[C]) -> Vec<u8> {
        let contents: usize = inline.iter().map(|c| 4 + c.as_ref().len()).sum();
        let mut bytes = Vec::with_capacity(5 + record.len() + contents);
        bytes.push(VERSION);
        put(&mut bytes, record);
        for content in inline {
            put(&mut bytes, content.as_ref());
        }
        bytes
    }

    /// Unpacks; none where the bytes are empty or not of a known version.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let record = take(&mut rest)?;
        let mut inline = Vec::new();
        while !rest.is_empty() {
            inline.push(take(&mut rest)?);
        }
        Some(Self { record, inline })
    }
}

/// What is longer than 4 GiB cannot have come over the wire, whose messages are far smaller.
fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(0);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&part[..length as usize]);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_and_nothing_else_is_read() {
        let packed = Envelope::encode(b"{}", &[&b"one"[..], b"", b"three"]);
        let read = Envelope::decode(&packed).unwrap();
        assert_eq!(read.record, b"{}");
        assert_eq!(read.inline, [&b"one"[..], b"", b"three"]);
        for bad in [
            &b""[..],
            b"\x02",
            b"\x01\xff\xff\xff\xff",
            &packed[..packed.len() - 1],
        ] {
            assert_eq!(Envelope::decode(bad), None, "{bad:?}");
        }
    }
}
