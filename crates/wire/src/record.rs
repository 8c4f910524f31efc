//! Records of attempts on their way and at rest. They are all alike, and many: the names of their
//! fields, most of their limits and the digest of an empty stream are in every one. An LZ4 block
//! against a dictionary that both sides know leaves a third of them.
//!
//! A packed record is the dictionary's number, the record's length as `u32`, little-endian, and the
//! block. What begins with a brace is a record that was not packed. Source: the LZ4 block format's
//! description.

use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// Longest record of an attempt in bytes, unpacked: ten thousand output files fit.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// The number of the dictionary that is packed with.
const NUMBER: u8 = 1;

/// Dictionary 1: what a record of an ordinary attempt looks like. Stores hold records that were
/// packed with it: it stays as it is, whatever records become. Another one gets another number.
const DICTIONARY: &[u8] = br#""what it asked for could not be limited: ","refused_calls":{"socket":1,"mount":1},"degraded":["refused system calls are not counted: this kernel gives no listener","reason":{"kind":"exit","code":1},"engine":"wasm","engine":"vm","went_on_from":"1.0.1","checkpoints":1,{"limit":"page_faults","value":{"limit":"disk_io","value":{"limit":"net_io","value":"action":"slowed"},"action":"ended"},"action":"enospc"},{"attempt":"1.0.1","reason":{"kind":"exit","code":0},"engine":"process","started":1800000000000,"ended":1800000000000,"wall_seconds":0.005,"paused_seconds":0.0,"usage":{"cpu_seconds":0.001,"memory_peak":9162752,"read_bytes":24576,"written_bytes":4096,"processes_peak":1,"page_faults":0,"system_seconds":0.001,"minor_faults":76,"waits":2},"limits":[{"limit":"cpus","value":1.0,"peak":0.0005,"at":null,"action":"none"},{"limit":"memory","value":2147483648.0,"peak":9162752.0,"at":null,"action":"none"},{"limit":"disk","value":2147483648.0,"peak":4096.0,"at":null,"action":"none"},{"limit":"time","value":86400.0,"peak":0.005,"at":null,"action":"none"},{"limit":"processes","value":256.0,"peak":1.0,"at":null,"action":"none"},{"limit":"output","value":1073741824.0,"peak":6.0,"at":null,"action":"none"},{"limit":"network","value":0.0,"peak":0.0,"at":null,"action":"none"}],"refused_calls":{},"degraded":["disk: watched, not held by a quota: a task over its limit is ended, within a second"],"outputs":[{"name":"stdout","digest":"blake3:","size":6,"mode":384},{"name":"stderr","digest":"blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","size":0,"mode":384}]}"#;

/// Packs a record, JSON.
#[must_use]
pub fn pack_record(json: &[u8]) -> Vec<u8> {
    let Ok(length) = u32::try_from(json.len()) else {
        // Far beyond what is ever sent.
        return json.to_vec();
    };
    let block = compress_with_dict(json, DICTIONARY);
    let mut packed = Vec::with_capacity(5 + block.len());
    packed.push(NUMBER);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&block);
    packed
}

/// The record that was packed, as JSON; of one that was not, the same.
///
/// # Errors
/// A sentence where it was packed otherwise than here, is damaged, or is too long.
pub fn unpack_record(packed: &[u8]) -> Result<Vec<u8>, String> {
    let Some((NUMBER, rest)) = packed.split_first().map(|(number, rest)| (*number, rest)) else {
        return match packed.first() {
            Some(b'{') => Ok(packed.to_vec()),
            Some(number) => Err(format!(
                "it is packed in a way this version does not know: {number}"
            )),
            None => Err("it is empty".to_owned()),
        };
    };
    let (length, block) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(format!("it says to have {length} bytes"));
    }
    let json = decompress_with_dict(block, length, DICTIONARY);
    let json = json.map_err(|error| format!("it is damaged: {error}"))?;
    match json.len() == length {
        true => Ok(json),
        false => Err("it is not as long as it says".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"attempt":"27.1804.1","reason":{"kind":"exit","code":0},"engine":"process","started":1795337252256,"ended":1795337254355,"wall_seconds":2.098367466,"paused_seconds":0.0,"usage":{"cpu_seconds":0.003739,"memory_peak":9121792,"read_bytes":6976,"written_bytes":4096,"processes_peak":1,"page_faults":0,"system_seconds":0.001038,"minor_faults":77,"waits":2},"limits":[{"limit":"cpus","value":1.0,"peak":0.0017818614044409703,"at":null,"action":"none"},{"limit":"memory","value":2147483648.0,"peak":9121792.0,"at":null,"action":"none"},{"limit":"disk","value":2147483648.0,"peak":4096.0,"at":null,"action":"none"},{"limit":"time","value":86400.0,"peak":2.098367466,"at":null,"action":"none"},{"limit":"processes","value":256.0,"peak":1.0,"at":null,"action":"none"},{"limit":"output","value":1073741824.0,"peak":6.0,"at":null,"action":"none"},{"limit":"network","value":0.0,"peak":0.0,"at":null,"action":"none"}],"refused_calls":{},"degraded":["disk: watched, not held by a quota: a task over its limit is ended, within a second"],"outputs":[{"name":"stdout","digest":"blake3:7b84e7f8ccb74e299eb080ec3fa2617e2bf407af914d6ecc9b210185ea38a208","size":6,"mode":384},{"name":"stderr","digest":"blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","size":0,"mode":384}]}"#;

    /// From both ends of the dictionary.
    const KEPT: &str = r#"{"what it asked for could not be limited":1,"size":0,"mode":384}]}"#;

    #[test]
    fn what_was_packed_comes_out_again_from_a_third_of_its_bytes() {
        let packed = pack_record(RECORD.as_bytes());
        assert_eq!(unpack_record(&packed).unwrap(), RECORD.as_bytes());
        assert!(packed.len() * 3 < RECORD.len(), "{}", packed.len());
        for json in ["{}", "{\"names\":[\"\u{1f600}\"]}", &"{".repeat(100_000)] {
            let packed = pack_record(json.as_bytes());
            assert_eq!(unpack_record(&packed).unwrap(), json.as_bytes());
        }
    }

    #[test]
    fn a_record_as_it_was_before_is_read() {
        assert_eq!(unpack_record(b"{\"a\":1}").unwrap(), b"{\"a\":1}");
    }

    /// Blocks in stores were packed against it: a change would make them unreadable.
    #[test]
    fn the_dictionary_never_changes() {
        let packed = [
            1, 66, 0, 0, 0, 31, 123, 50, 6, 20, 61, 34, 58, 49, 66, 0, 96, 51, 56, 52, 125, 93, 125,
        ];
        assert_eq!(unpack_record(&packed).unwrap(), KEPT.as_bytes());
    }

    #[test]
    fn damaged_and_hostile_records_are_refused_in_words() {
        let packed = pack_record(RECORD.as_bytes());
        for cut in 0..packed.len() {
            unpack_record(&packed[..cut]).unwrap_err();
        }
        let mut long = packed.clone();
        long[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack_record(&long).unwrap_err().contains("4294967295"));
        let mut short = packed.clone();
        short[1..5].copy_from_slice(&3_u32.to_le_bytes());
        unpack_record(&short).unwrap_err();
        assert!(unpack_record(b"\x07rest").unwrap_err().contains('7'));
        // Whatever a byte becomes, it is an error or something of the length that it says.
        for at in 5..packed.len() {
            let mut other = packed.clone();
            other[at] ^= 0x55;
            if let Ok(json) = unpack_record(&other) {
                assert_eq!(json.len(), RECORD.len());
            }
        }
    }
}
