//! The one line that a desktop says: a version, when it was last used, and letters.

use crate::moment::Moment;
use std::time::Duration;

/// How often a desktop speaks while nothing changes.
pub(crate) const BEAT: Duration = Duration::from_secs(5);

/// Longest line, in bytes.
pub(crate) const LINE_MAX: usize = 64;

/// The first word of every line.
const VERSION: &str = "gleaner-session-1";

/// All that a desktop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Word {
    /// When it was last used, by the clock that counts from boot; none where it cannot tell.
    pub(crate) active: Option<Moment>,
    pub(crate) full_screen: bool,
    pub(crate) presenting: bool,
    pub(crate) game: bool,
    pub(crate) inhibited: bool,
    pub(crate) locked: bool,
}

impl Word {
    pub(crate) fn line(self) -> String {
        let active = match self.active {
            Some(at) => at.since_boot().as_millis().to_string(),
            None => "-".to_owned(),
        };
        let letters = [
            (self.full_screen, 'f'),
            (self.presenting, 'p'),
            (self.game, 'g'),
            (self.inhibited, 'i'),
            (self.locked, 'l'),
        ];
        let letters: String = letters
            .into_iter()
            .filter_map(|(yes, letter)| yes.then_some(letter))
            .collect();
        format!("{VERSION} {active} .{letters}\n")
    }

    /// Letters that a later version adds are passed over; anything else unknown is refused.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [VERSION, active, letters] = words.as_slice() else {
            return None;
        };
        let active = match *active {
            "-" => None,
            millis => Some(Moment::at(Duration::from_millis(millis.parse().ok()?))),
        };
        let letters = letters.strip_prefix('.')?;
        Some(Self {
            active,
            full_screen: letters.contains('f'),
            presenting: letters.contains('p'),
            game: letters.contains('g'),
            inhibited: letters.contains('i'),
            locked: letters.contains('l'),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_meant() {
        let full = Word {
            active: Some(Moment::at(Duration::from_millis(u64::MAX))),
            full_screen: true,
            presenting: true,
            game: true,
            inhibited: true,
            locked: true,
        };
        for word in [Word::default(), full] {
            let line = word.line();
            assert!(line.len() <= LINE_MAX, "{line}");
            assert_eq!(Word::parse(line.trim_end().as_bytes()), Some(word));
        }
        let later = Word::parse(b"gleaner-session-1 5 .lz").unwrap();
        assert!(later.locked);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "hello",
            "gleaner-session-2 5 .",
            "gleaner-session-1 -5 .",
            "gleaner-session-1 5 . x",
        ] {
            assert_eq!(Word::parse(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(Word::parse(&[0xff, 0xfe]), None);
    }
}
