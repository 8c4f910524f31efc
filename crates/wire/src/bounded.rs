//! The codec of the protocol: protobuf, as long as a message makes no more of its bytes than what
//! sends them. Two bytes on the wire are an empty message, which is hundreds in memory; so what an
//! agent says is counted before anything is made of it.

use crate::v1::{AgentBatch, ServerBatch};
use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Most messages of an agent in one batch: four times as many as an agent sends.
pub const AGENT_MESSAGES_MAX: usize = 4096;

/// Most fields of all messages of a batch together. The digests of 50,000 outputs are so many, and a
/// batch of agents has four megabytes before one more such end.
pub const AGENT_FIELDS_MAX: usize = 256 << 10;

/// A message that is looked at before it is read.
pub trait Bounded {
    /// Why it is not read, if it is not.
    fn refused(bytes: &[u8]) -> Option<String>;
}

impl Bounded for AgentBatch {
    fn refused(bytes: &[u8]) -> Option<String> {
        let (mut messages, mut fields) = (0, 0);
        let counted = count(bytes, &mut |message| {
            messages += 1;
            fields += 1;
            within(messages, fields)?;
            count(message, &mut |kind| {
                fields += 1;
                within(messages, fields)?;
                count(kind, &mut |_| {
                    fields += 1;
                    within(messages, fields)
                })
            })
        });
        counted.err()
    }
}

/// Servers are believed by their agents: the bytes of a message are bound enough.
impl Bounded for ServerBatch {
    fn refused(_: &[u8]) -> Option<String> {
        None
    }
}

fn within(messages: usize, fields: usize) -> Result<(), String> {
    if messages > AGENT_MESSAGES_MAX {
        return Err(format!(
            "more than {AGENT_MESSAGES_MAX} messages in one batch; send them in several"
        ));
    }
    if fields > AGENT_FIELDS_MAX {
        return Err(format!(
            "more than {AGENT_FIELDS_MAX} fields in one batch; send its messages in several"
        ));
    }
    Ok(())
}

/// Hears of a field, and of its bytes where it has any of its own.
type Told<'t> = dyn FnMut(&[u8]) -> Result<(), String> + 't;

/// Tells each field of a message. What is not understood here is refused, so nothing is read that
/// was not counted.
fn count(mut bytes: &[u8], told: &mut Told<'_>) -> Result<(), String> {
    while !bytes.is_empty() {
        let (_, kind) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut bytes).map_err(|error| error.to_string())?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                decode_varint(&mut bytes).map_err(|error| error.to_string())?
            }
            WireType::StartGroup | WireType::EndGroup => {
                return Err("a group, which this protocol does not have".to_owned());
            }
        };
        let cut = || "a field that is longer than its message".to_owned();
        let length = usize::try_from(length).map_err(|_| cut())?;
        let content = bytes.get(..length).ok_or_else(cut)?;
        told(match kind == WireType::LengthDelimited {
            true => content,
            false => &[],
        })?;
        bytes.advance(length);
    }
    Ok(())
}

/// Writes as prost does, and reads what is within bounds.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Bounded + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// The reading half.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Bounded + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if let Some(why) = U::refused(&bytes) {
            return Err(Status::invalid_argument(why));
        }
        let read = U::decode(bytes);
        read.map(Some)
            .map_err(|error| Status::invalid_argument(format!("a batch makes no sense: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::agent_message::Kind;
    use crate::v1::{AgentMessage, Attempt, Ended, Held, Hello};
    use prost::encoding::encode_varint;

    fn batch(kinds: Vec<Kind>) -> Vec<u8> {
        let messages = kinds
            .into_iter()
            .map(|kind| AgentMessage { kind: Some(kind) })
            .collect();
        AgentBatch { messages, node: 7 }.encode_to_vec()
    }

    #[test]
    fn what_agents_send_is_read() {
        // As much as one may report at once: fifty thousand outputs by digest, beside others.
        let attempt = Some(Attempt {
            job: 1,
            index: 2,
            number: 3,
        });
        let end = |outputs| {
            Kind::Ended(Ended {
                attempt,
                blobs: vec![vec![7; 32]; outputs],
                cpu_seconds: 1.5,
                ..Ended::default()
            })
        };
        let mut many = vec![end(0); 1023];
        many.push(end(50_000));
        assert_eq!(AgentBatch::refused(&batch(many)), None);
        let held = Held {
            attempt,
            state: "running".to_owned(),
        };
        let hello = Hello {
            held: vec![held; 10_000],
            ..Hello::default()
        };
        assert_eq!(AgentBatch::refused(&batch(vec![Kind::Hello(hello)])), None);
        assert_eq!(AgentBatch::refused(&[]), None);
    }

    #[test]
    fn many_empty_messages_are_refused_before_they_are_made() {
        let refused = |bytes: &[u8]| AgentBatch::refused(bytes).unwrap();
        let empty = [0x0a, 0].repeat(AGENT_MESSAGES_MAX);
        assert_eq!(AgentBatch::refused(&empty), None);
        let one_more = [&empty[..], &[0x0a, 0]].concat();
        assert!(refused(&one_more).contains("more than 4096 messages"));
        // The same a level down: held attempts of a hello, outputs of an end.
        for (number, kind) in [(1, 12), (4, 6)] {
            let inner = [kind << 3 | 2, 0].repeat(AGENT_FIELDS_MAX);
            let kind = [&[number << 3 | 2][..], &length(inner.len()), &inner].concat();
            let message = [&[0x0a][..], &length(kind.len()), &kind].concat();
            assert!(refused(&message).contains("more than 262144 fields"));
        }
    }

    fn length(value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_varint(value as u64, &mut bytes);
        bytes
    }

    #[test]
    fn what_cannot_be_counted_is_not_read() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, 0],
            // A group, and a key of no number.
            &[0x0b, 0x0c],
            &[0x00],
            // A length of 2^64 - 1.
            &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(AgentBatch::refused(bytes).is_some(), "{bytes:?}");
        }
    }
}
