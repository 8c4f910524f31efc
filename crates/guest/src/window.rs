//! Flow control: how much the guest may send before the host has taken it. Pure.
//!
//! The host says now and then how many bytes of payload it has taken in all. The guest never has
//! more than [`WINDOW_BYTES`] on the way, so the host needs no more memory however much a
//! program writes; and no more than a few small frames are ever on the way to the guest.

use crate::frame::{CHECK_BYTES, HEAD_BYTES, TO_GUEST_MAX_BYTES};

/// Most bytes of payload on the way to the host.
pub const WINDOW_BYTES: u64 = 512 << 10;

/// The host speaks after so many bytes taken.
pub const TELL_BYTES: u64 = 128 << 10;

/// A terminal of user-mode Linux hangs where this many bytes wait to be read in the guest.
const TERMINAL_BYTES: u64 = 4000;

/// Most frames on the way to the guest: one for each part of the window, a stop, a get, a clock,
/// and a question whether it is there.
const FRAMES: u64 = WINDOW_BYTES / TELL_BYTES + 4;
const _: () =
    assert!(FRAMES * (HEAD_BYTES + TO_GUEST_MAX_BYTES + CHECK_BYTES) as u64 <= TERMINAL_BYTES);

/// The guest's side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sending {
    sent: u64,
    taken: u64,
}

impl Sending {
    /// Bytes that may be sent now.
    #[must_use]
    pub const fn room(&self) -> u64 {
        WINDOW_BYTES.saturating_sub(self.sent - self.taken)
    }

    /// So many were sent.
    pub const fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The host has taken so many in all.
    pub fn taken(&mut self, total: u64) {
        self.taken = self.taken.max(total.min(self.sent));
    }
}

/// The host's side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taking {
    taken: u64,
    told: u64,
}

impl Taking {
    /// Goes on where another one was; see [`Taking::state`].
    #[must_use]
    pub const fn resumed([taken, told]: [u64; 2]) -> Self {
        Self { taken, told }
    }

    /// Bytes taken and told of.
    #[must_use]
    pub const fn state(&self) -> [u64; 2] {
        [self.taken, self.told]
    }

    /// So many more were taken. Says what to tell the guest, if it is time.
    pub fn took(&mut self, bytes: u64) -> Option<u64> {
        self.taken = self.taken.saturating_add(bytes);
        (self.taken - self.told >= TELL_BYTES).then(|| {
            self.told = self.taken;
            self.taken
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_stops_at_the_window_and_goes_on_when_told() {
        let (mut sending, mut taking) = (Sending::default(), Taking::default());
        let mut on_the_way = Vec::new();
        while sending.room() >= 1000 {
            sending.sent(1000);
            on_the_way.push(1000);
        }
        assert!(on_the_way.len() as u64 * 1000 <= WINDOW_BYTES);
        let told: Vec<u64> = on_the_way
            .into_iter()
            .filter_map(|bytes| taking.took(bytes))
            .collect();
        assert!(told.len() as u64 <= WINDOW_BYTES / TELL_BYTES, "{told:?}");
        for total in &told {
            sending.taken(*total);
        }
        assert!(sending.room() >= WINDOW_BYTES - TELL_BYTES);
        // A host that says it took more than was sent opens no more than the window.
        sending.taken(u64::MAX);
        assert_eq!(sending.room(), WINDOW_BYTES);
    }
}
