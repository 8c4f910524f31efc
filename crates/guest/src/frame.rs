//! Frames on the one byte stream between host and guest. Pure.
//!
//! ```text
//! length of payload u32 | kind u8 | number u32 | payload | first 8 bytes of BLAKE3 of all before
//! ```
//! Numbers are little-endian and count from 0 in each direction, so that a frame that is lost,
//! doubled or made up is seen. Whoever reads sets the bound of a payload and never holds more
//! than one frame and what one read brought; after the first fault nothing is believed any more.

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 9;

/// Bytes after the payload.
pub const CHECK_BYTES: usize = 8;

/// Largest payload from the host. Terminals of user-mode Linux lose their way where 4 KiB wait
/// to be read.
pub const TO_GUEST_MAX_BYTES: usize = 64;

/// Largest payload from the guest: large enough that heads cost nothing.
pub const TO_HOST_MAX_BYTES: usize = 32 << 10;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: u8,
    /// How many frames went before it this way.
    pub number: u32,
    /// Its content.
    pub payload: Vec<u8>,
}

/// The stream is not what our other end writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than a frame may hold.
    #[error("a frame of {0} bytes is too long")]
    TooLong(u32),
    /// Another number than the next.
    #[error("frame {got} came where {wanted} was due")]
    Order {
        /// What was due.
        wanted: u32,
        /// What came.
        got: u32,
    },
    /// The check does not fit the content.
    #[error("frame {0} is damaged")]
    Damaged(u32),
    /// There was a fault before.
    #[error("the stream broke earlier")]
    Broken,
}

/// Appends a frame to `out`. The payload must be within the receiver's bound.
pub fn encode(kind: u8, number: u32, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend(length.to_le_bytes());
    out.push(kind);
    out.extend(number.to_le_bytes());
    out.extend(payload);
    let check = check(out.get(start..).unwrap_or_default());
    out.extend(check);
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let whole = blake3::hash(bytes);
    let mut short = [0; CHECK_BYTES];
    for (to, from) in short.iter_mut().zip(whole.as_bytes()) {
        *to = *from;
    }
    short
}

/// Takes a stream apart.
#[derive(Debug)]
pub struct Parser {
    held: Vec<u8>,
    /// How much of `held` has been used up.
    used: usize,
    next: u32,
    max_bytes: usize,
    broken: bool,
}

impl Parser {
    /// For payloads up to `max_bytes`.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            held: Vec::new(),
            used: 0,
            next: 0,
            max_bytes,
            broken: false,
        }
    }

    /// Goes on where another one was: the next frame's number, and what waited for its rest.
    #[must_use]
    pub fn resumed(max_bytes: usize, next: u32, held: Vec<u8>) -> Self {
        Self {
            held,
            next,
            ..Self::new(max_bytes)
        }
    }

    /// What [`Parser::resumed`] needs.
    #[must_use]
    pub fn state(&self) -> (u32, &[u8]) {
        (self.next, self.held.get(self.used..).unwrap_or_default())
    }

    /// Takes what was read. Call [`Parser::frame`] until it has none before the next read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        self.held.drain(..self.used);
        self.used = 0;
        self.held.extend(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// At the first fault, and ever after.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.broken {
            return Err(FrameError::Broken);
        }
        let found = self.take();
        if found.is_err() {
            self.broken = true;
            self.held = Vec::new();
            self.used = 0;
        }
        found
    }

    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.held.get(self.used..).unwrap_or_default();
        let Some((head, after)) = rest.split_at_checked(HEAD_BYTES) else {
            return Ok(None);
        };
        let number_at = |at: usize| {
            let bytes = head.get(at..at + 4).unwrap_or_default();
            bytes
                .iter()
                .rev()
                .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let length = number_at(0);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        // Before the rest has come: nobody makes us hold more than a frame.
        if bytes > self.max_bytes {
            return Err(FrameError::TooLong(length));
        }
        let Some((payload, after)) = after.split_at_checked(bytes) else {
            return Ok(None);
        };
        let Some((sent_check, _)) = after.split_at_checked(CHECK_BYTES) else {
            return Ok(None);
        };
        let got = number_at(5);
        let whole = rest.get(..HEAD_BYTES + bytes).unwrap_or_default();
        if check(whole) != sent_check {
            return Err(FrameError::Damaged(self.next));
        }
        if got != self.next {
            let wanted = self.next;
            return Err(FrameError::Order { wanted, got });
        }
        let frame = Frame {
            kind: head.get(4).copied().unwrap_or_default(),
            number: got,
            payload: payload.to_vec(),
        };
        self.used += HEAD_BYTES + bytes + CHECK_BYTES;
        self.next = self.next.wrapping_add(1);
        Ok(Some(frame))
    }

    /// Bytes that wait for their rest.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held.len() - self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(parser: &mut Parser) -> Result<Vec<Frame>, FrameError> {
        let mut found = Vec::new();
        while let Some(frame) = parser.frame()? {
            found.push(frame);
        }
        Ok(found)
    }

    fn stream(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (kind, payload)) in (0..).zip(frames) {
            encode(*kind, number, payload, &mut bytes);
        }
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..200);
        proptest::collection::vec((any::<u8>(), payload), 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_it_is_cut(
            sent in frames(), cuts in proptest::collection::vec(1_usize..64, 1..64)
        ) {
            let bytes = stream(&sent);
            let mut parser = Parser::new(200);
            let mut got = Vec::new();
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = (at + cut.next().copied().unwrap_or(1)).min(bytes.len());
                parser.push(&bytes[at..end]);
                got.extend(all(&mut parser).unwrap());
                at = end;
            }
            let got: Vec<_> = got.into_iter().map(|frame| (frame.kind, frame.payload)).collect();
            prop_assert_eq!(got, sent);
            prop_assert_eq!(parser.held_bytes(), 0);
        }

        #[test]
        fn a_changed_byte_is_never_believed(sent in frames(), at in any::<usize>(), bit in 0_u8..8) {
            let mut bytes = stream(&sent);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            let mut parser = Parser::new(200);
            parser.push(&bytes);
            // Frames before the change are what they were; the changed one never comes.
            let mut got = Vec::new();
            while let Ok(Some(frame)) = parser.frame() {
                got.push((frame.kind, frame.payload));
            }
            prop_assert!(got.len() < sent.len());
            prop_assert_eq!(&got[..], &sent[..got.len()]);
        }

        #[test]
        fn noise_is_bounded_and_breaks_nothing(noise in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let mut parser = Parser::new(64);
            for part in noise.chunks(100) {
                parser.push(part);
                let _fault = all(&mut parser);
                prop_assert!(parser.held_bytes() <= HEAD_BYTES + 64 + CHECK_BYTES + 100);
            }
        }
    }

    #[test]
    fn a_cut_frame_waits_and_a_long_one_is_refused_at_its_head() {
        let mut parser = Parser::new(10);
        let bytes = stream(&[(1, vec![7; 10])]);
        parser.push(&bytes[..bytes.len() - 1]);
        assert_eq!(parser.frame(), Ok(None));
        parser.push(&bytes[bytes.len() - 1..]);
        assert!(matches!(parser.frame(), Ok(Some(_))));
        let mut flood = Vec::new();
        encode(1, 1, &[0; 11], &mut flood);
        parser.push(&flood[..HEAD_BYTES]);
        assert_eq!(parser.frame(), Err(FrameError::TooLong(11)));
        parser.push(&bytes);
        assert_eq!(parser.frame(), Err(FrameError::Broken));
        assert_eq!(parser.held_bytes(), 0);
    }

    #[test]
    fn a_stream_goes_on_in_the_middle_of_a_frame() {
        let bytes = stream(&[(1, b"first".to_vec()), (2, b"second".to_vec())]);
        for cut in 0..bytes.len() {
            let mut before = Parser::new(10);
            before.push(&bytes[..cut]);
            let mut got = all(&mut before).unwrap();
            let (next, held) = before.state();
            let mut after = Parser::resumed(10, next, held.to_vec());
            after.push(&bytes[cut..]);
            got.extend(all(&mut after).unwrap());
            assert_eq!(got.len(), 2, "{cut}");
        }
    }

    #[test]
    fn a_frame_twice_or_never_is_seen() {
        let mut twice = Vec::new();
        encode(1, 0, b"a", &mut twice);
        encode(1, 0, b"a", &mut twice);
        let mut parser = Parser::new(10);
        parser.push(&twice);
        assert!(matches!(parser.frame(), Ok(Some(_))));
        assert_eq!(parser.frame(), Err(FrameError::Order { wanted: 1, got: 0 }));
    }
}
