//! Messages as bytes.

use super::{BusError, Peer, Said, Value};

/// Longest message that is taken, in bytes; a bus allows 128 MiB, nobody here has that to say.
const MESSAGE_MAX: usize = 1 << 20;

/// Deepest nesting of types: more than any interface has, and little enough for the stack.
const DEPTH_MAX: u32 = 16;

/// Most values in one message, so that a small one cannot grow large in memory.
const VALUES_MAX: usize = 50_000;

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Text(&'a str),
    Number(u32),
}

/// A message of a kind that matters.
#[derive(Debug)]
pub(super) enum Message {
    Answer { to: u32, body: Vec<Value> },
    Error { to: u32, name: String, text: String },
    Said(Said),
    Other,
}

/// Flag of a call: whoever is not running stays so. Asking must not start anything.
const NO_AUTO_START: u8 = 2;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
pub(super) const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call, in little-endian order.
pub(super) fn call(serial: u32, peer: Peer<'_>, member: &str, args: &[Arg<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut signature = String::new();
    for arg in args {
        pad(&mut body, 4);
        match arg {
            Arg::Text(text) => {
                signature.push('s');
                put_text(&mut body, text);
            }
            Arg::Number(number) => {
                signature.push('u');
                body.extend(number.to_le_bytes());
            }
        }
    }
    let mut fields = Vec::new();
    put_field(&mut fields, PATH, 'o', peer.path);
    put_field(&mut fields, INTERFACE, 's', peer.interface);
    put_field(&mut fields, MEMBER, 's', member);
    put_field(&mut fields, DESTINATION, 's', peer.name);
    if !signature.is_empty() {
        put_field(&mut fields, SIGNATURE, 'g', &signature);
    }
    let mut bytes = vec![b'l', CALL, NO_AUTO_START, 1];
    bytes.extend(size(&body).to_le_bytes());
    bytes.extend(serial.to_le_bytes());
    bytes.extend(size(&fields).to_le_bytes());
    bytes.extend(fields);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(size(text.as_bytes()).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A header field: its number, its type, its value.
fn put_field(fields: &mut Vec<u8>, number: u8, kind: char, text: &str) {
    pad(fields, 8);
    let kind = u8::try_from(kind).unwrap_or(b's');
    fields.extend([number, 1, kind, 0]);
    if kind == b'g' {
        // A signature's length is one byte; ours have a handful of letters.
        fields.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        fields.extend(text.as_bytes());
        fields.push(0);
    } else {
        put_text(fields, text);
    }
}

/// Bytes of the message that these begin, as soon as they say.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, BusError> {
    if bytes.len() < 16 {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes)?;
    reader.at = 4;
    let body = reader.length()?;
    reader.at = 12;
    let fields = reader.length()?;
    let total = (16 + fields).next_multiple_of(8) + body;
    match total > MESSAGE_MAX {
        true => Err(BusError::Nonsense("a message of more than a mebibyte")),
        false => Ok(Some(total)),
    }
}

/// A whole message.
pub(super) fn message(bytes: &[u8]) -> Result<Message, BusError> {
    let mut reader = Reader::new(bytes)?;
    let kind = bytes[1];
    reader.at = 12;
    let fields = reader.value("a(yv)", 0)?;
    let (mut to, mut member, mut error, mut signature) = (None, None, None, String::new());
    let mut directed = false;
    for field in fields.parts() {
        let [Value::Number(number), value] = field.parts() else {
            continue;
        };
        let text = || value.text().map(str::to_owned);
        match u8::try_from(*number) {
            Ok(REPLY_SERIAL) => to = value.number().and_then(|n| u32::try_from(n).ok()),
            Ok(MEMBER) => member = text(),
            Ok(ERROR_NAME) => error = text(),
            Ok(SIGNATURE) => signature = text().unwrap_or_default(),
            Ok(DESTINATION) => directed = true,
            _ => {}
        }
    }
    reader.align(8)?;
    let mut body = Vec::new();
    let mut rest = signature.as_str();
    while !rest.is_empty() {
        let (one, tail) = split_type(rest).ok_or(BusError::Nonsense("a broken signature"))?;
        body.push(reader.value(one, 0)?);
        rest = tail;
    }
    Ok(match (kind, to, member, error) {
        (ANSWER, Some(to), ..) => Message::Answer { to, body },
        (ERROR, Some(to), _, Some(name)) => {
            let text = body.first().and_then(Value::text).unwrap_or_default();
            Message::Error {
                to,
                name,
                text: text.to_owned(),
            }
        }
        // One that is sent to us alone comes past all rules of ours, and so from anybody.
        (SIGNAL, _, Some(member), _) if !directed => Message::Said(Said { member, body }),
        _ => Message::Other,
    })
}

/// The first complete type of a signature, and the rest.
fn split_type(signature: &str) -> Option<(&str, &str)> {
    let mut open = 0_u32;
    for (at, letter) in signature.bytes().enumerate() {
        match letter {
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1)?,
            b'a' => continue,
            _ => {}
        }
        if open == 0 {
            return signature.split_at_checked(at + 1);
        }
    }
    None
}

/// Reads values of one message.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    big: bool,
    left: usize,
}

impl<'b> Reader<'b> {
    const fn new(bytes: &'b [u8]) -> Result<Self, BusError> {
        let big = match bytes {
            [b'l', _, _, 1, ..] => false,
            [b'B', _, _, 1, ..] => true,
            _ => return Err(BusError::Nonsense("no message of version 1")),
        };
        Ok(Self {
            bytes,
            at: 0,
            big,
            left: VALUES_MAX,
        })
    }

    const fn align(&mut self, to: usize) -> Result<(), BusError> {
        self.at = self.at.next_multiple_of(to);
        match self.at > self.bytes.len() {
            true => Err(BusError::Nonsense("a message that ends early")),
            false => Ok(()),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], BusError> {
        let end = self.at.saturating_add(count);
        let part = self.bytes.get(self.at..end);
        self.at = end;
        part.ok_or(BusError::Nonsense("a message that ends early"))
    }

    /// A whole number without sign of so many bytes.
    fn number(&mut self, count: usize) -> Result<u64, BusError> {
        self.align(count)?;
        let big = self.big;
        let part = self.take(count)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Ok(match big {
            true => part.iter().fold(0, add),
            false => part.iter().rev().fold(0, add),
        })
    }

    fn length(&mut self) -> Result<usize, BusError> {
        let length = usize::try_from(self.number(4)?).unwrap_or(usize::MAX);
        match length > MESSAGE_MAX {
            true => Err(BusError::Nonsense("a part larger than any message")),
            false => Ok(length),
        }
    }

    fn text(&mut self, length: usize) -> Result<Value, BusError> {
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| BusError::Nonsense("a text that is none"))?;
        self.take(1)?;
        Ok(Value::Text(text.to_owned()))
    }

    /// A value of one complete type.
    fn value(&mut self, kind: &str, depth: u32) -> Result<Value, BusError> {
        self.left = self.left.saturating_sub(1);
        if depth > DEPTH_MAX || self.left == 0 {
            return Err(BusError::Nonsense("too deep or too many"));
        }
        let signed = |number: u64, bits: u32| {
            let number = i128::from(number);
            if number >> (bits - 1) == 0 {
                number
            } else {
                number - (1 << bits)
            }
        };
        Ok(match kind.as_bytes() {
            [b'y'] => Value::Number(self.number(1)?.into()),
            [b'b'] => Value::Bool(self.number(4)? != 0),
            [b'n'] => Value::Number(signed(self.number(2)?, 16)),
            [b'q'] => Value::Number(self.number(2)?.into()),
            [b'i'] => Value::Number(signed(self.number(4)?, 32)),
            [b'u' | b'h'] => Value::Number(self.number(4)?.into()),
            [b'x'] => Value::Number(signed(self.number(8)?, 64)),
            [b't'] => Value::Number(self.number(8)?.into()),
            [b'd'] => Value::Real(f64::from_bits(self.number(8)?)),
            [b's' | b'o'] => {
                let length = self.length()?;
                self.text(length)?
            }
            [b'g'] => {
                let length = usize::try_from(self.number(1)?).unwrap_or_default();
                self.text(length)?
            }
            [b'v'] => self.variant(depth)?,
            [b'a', ..] => self.array(&kind[1..], depth)?,
            [b'(' | b'{', .., _] => self.structure(&kind[1..kind.len() - 1], depth)?,
            _ => return Err(BusError::Nonsense("an unknown type")),
        })
    }

    fn variant(&mut self, depth: u32) -> Result<Value, BusError> {
        let length = usize::try_from(self.number(1)?).unwrap_or_default();
        let signature = self.text(length)?;
        let kind = signature.text().unwrap_or_default();
        match split_type(kind) {
            Some((one, "")) => Ok(Value::Variant(Box::new(self.value(one, depth + 1)?))),
            _ => Err(BusError::Nonsense("a variant of several types")),
        }
    }

    fn array(&mut self, kind: &str, depth: u32) -> Result<Value, BusError> {
        let length = self.length()?;
        let first = kind.bytes().next();
        self.align(match first {
            Some(b'(' | b'{' | b'x' | b't' | b'd') => 8,
            Some(b'n' | b'q') => 2,
            Some(b'y' | b'g' | b'v') => 1,
            _ => 4,
        })?;
        let end = self.at + length;
        let mut parts = Vec::new();
        while self.at < end {
            parts.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::Array(parts))
    }

    fn structure(&mut self, kinds: &str, depth: u32) -> Result<Value, BusError> {
        self.align(8)?;
        let mut parts = Vec::new();
        let mut rest = kinds;
        while let Some((one, tail)) = split_type(rest) {
            parts.push(self.value(one, depth + 1)?);
            rest = tail;
        }
        match rest {
            "" => Ok(Value::Struct(parts)),
            _ => Err(BusError::Nonsense("a broken structure")),
        }
    }
}
