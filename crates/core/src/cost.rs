//! What a job's attempts cost, as far as it decides about its engine: seven sums, the figures that
//! follow from them, and the bound of each.

use crate::event::{AskedBy, AttemptEnd, KernelUse};
use alloc::format;
use alloc::string::String;
use gleaner_model::GuestPrice;

/// CPU seconds after which what was seen of a job is believed. A program's start alone, some ten
/// milliseconds and nearly all of it in the kernel, then weighs at most a hundredth.
pub const MEASURED_SECONDS: f64 = 1.0;

/// Beyond this many seconds, of CPU time for what the kernel was asked and of wall time for how
/// long tasks take, older tasks weigh half: a job whose tasks change is followed, and the sums stay
/// bounded.
pub const REMEMBERED_SECONDS: f64 = 3600.0;

/// CPU seconds of guests after which what was seen of them is believed: their boots, which differ
/// from PC to PC by some tenths of a second, are then a few hundredths at most.
pub(crate) const GUEST_MEASURED_SECONDS: f64 = 10.0;

/// What a guest's boot takes, which no task is to be blamed for: CPU seconds, and of these seconds
/// in the node's kernel. Seen: 0.8 and 0.23; twice that is let go.
const BOOT_CPU_SECONDS: (f64, f64) = (1.6, 0.5);

/// What a guest takes to start, in seconds: what is promised of the slowest kind.
const BOOT_SECONDS: f64 = 1.5;

/// Most of a figure that one attempt can add: a broken report must not decide for ever.
const MOST_SECONDS: f64 = 3.2e7;

/// What is measured of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Share of the CPU time that passed in the kernel.
    KernelShare,
    /// Page faults a CPU second, first touches counted.
    FaultRate,
    /// Start of a guest as a share of the time that a task takes.
    BootShare,
    /// Share of the CPU time of guests that make calls dear which passed in the node's kernel: what
    /// calls and faults cost there, seen where they cost it.
    GuestShare,
}

/// From where on a figure speaks for processes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Which figure.
    pub figure: Figure,
    /// More than this is too much.
    pub most: f64,
    /// Whether it counts only where a guest makes calls dear.
    pub calls: bool,
}

/// All that decides. Each bound is where a job would lose about a twentieth of its speed, the most
/// that is promised of arithmetic in a guest whose kernel is a program.
pub const BOUNDS: [Bound; 4] = [
    // Such guests' calls were seen at 10 to 140 times the price; of a program's time in the kernel
    // most is work that costs there what it costs here (zeroed pages, copies). At two hundredths
    // and a price of three on the average, a twentieth is lost.
    Bound {
        figure: Figure::KernelShare,
        most: 0.02,
        calls: true,
    },
    // A fault was seen at 30 to 75 microseconds there, at 1 to 3 as a process: at a thousand a
    // second a twentieth is lost.
    Bound {
        figure: Figure::FaultRate,
        most: 1000.0,
        calls: true,
    },
    // Tasks of less than half a minute would spend more than a twentieth on starts.
    Bound {
        figure: Figure::BootShare,
        most: 0.05,
        calls: false,
    },
    // Arithmetic in such a guest asks its node for nothing. For each second that calls took in the
    // node's kernel they took two more in the guest's own. So at a twentieth a seventh is lost,
    // well above what the other bounds promise, so that they and this one do not send a job to and fro.
    Bound {
        figure: Figure::GuestShare,
        most: 0.05,
        calls: true,
    },
];

/// What was seen of a job's attempts, added up. Bounded and durable.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JobCost {
    /// Attempts that ran and ended.
    pub ends: f64,
    /// CPU seconds of those among them that were processes.
    pub cpu_seconds: f64,
    /// Of these, seconds in the kernel.
    pub system_seconds: f64,
    /// Their page faults.
    pub faults: f64,
    /// Wall seconds of all, pauses left out.
    pub busy_seconds: f64,
    /// CPU seconds of those that ran in guests that make calls dear, boots left out.
    pub guest_seconds: f64,
    /// Of these, seconds in the nodes' kernels.
    pub guest_system_seconds: f64,
}

impl JobCost {
    /// Adds one attempt, on a node with guests of this price; false where it says nothing.
    pub(crate) fn note(&mut self, end: &AttemptEnd, price: GuestPrice) -> bool {
        let cpu = sane(end.cpu_seconds);
        if cpu == 0.0 {
            return false;
        }
        self.ends += 1.0;
        self.busy_seconds += sane(end.busy_seconds);
        while self.busy_seconds > REMEMBERED_SECONDS {
            halve([&mut self.ends, &mut self.busy_seconds]);
        }
        match end.kernel {
            Some(kernel) if kernel.asked_by == AskedBy::Program => self.note_process(cpu, kernel),
            Some(kernel) if price == GuestPrice::Calls => self.note_guest(cpu, kernel),
            // Elsewhere what a node sees of a guest is how its machine works.
            Some(_) | None => {}
        }
        true
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "faults of one attempt stay far below 2^53"
    )]
    fn note_process(&mut self, cpu: f64, kernel: KernelUse) {
        self.cpu_seconds += cpu;
        self.system_seconds += sane(kernel.system_seconds).min(cpu);
        self.faults += (kernel.faults as f64).min(cpu * 1e7);
        while self.cpu_seconds > REMEMBERED_SECONDS {
            halve([
                &mut self.cpu_seconds,
                &mut self.system_seconds,
                &mut self.faults,
            ]);
            // So long ago that it may be tried again; where nothing has changed the first guests
            // say so.
            (self.guest_seconds, self.guest_system_seconds) = (0.0, 0.0);
        }
    }

    fn note_guest(&mut self, cpu: f64, kernel: KernelUse) {
        let (boot, boot_system) = BOOT_CPU_SECONDS;
        let cpu = (cpu - boot).max(0.0);
        self.guest_seconds += cpu;
        self.guest_system_seconds += (sane(kernel.system_seconds) - boot_system).clamp(0.0, cpu);
        while self.guest_seconds > REMEMBERED_SECONDS {
            halve([&mut self.guest_seconds, &mut self.guest_system_seconds]);
        }
    }

    /// Whether enough was seen.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.cpu_seconds >= MEASURED_SECONDS
    }

    /// One figure; none before anything, or of guests enough, was seen.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let (of, by) = match figure {
            Figure::KernelShare => (self.system_seconds, self.cpu_seconds),
            Figure::FaultRate => (self.faults, self.cpu_seconds),
            Figure::BootShare => (self.ends * BOOT_SECONDS, self.busy_seconds),
            Figure::GuestShare if self.guest_seconds < GUEST_MEASURED_SECONDS => return None,
            Figure::GuestShare => (self.guest_system_seconds, self.guest_seconds),
        };
        (by > 0.0).then(|| of / by)
    }

    /// The figures that speak against guests of this price.
    pub fn against(&self, price: GuestPrice) -> impl Iterator<Item = Figure> + '_ {
        let counts = move |bound: &&Bound| !bound.calls || price != GuestPrice::Little;
        let over = |bound: &&Bound| match self.figure(bound.figure) {
            Some(is) => is > bound.most,
            // What only guests can tell is no reason against the first of them.
            None => bound.figure != Figure::GuestShare,
        };
        BOUNDS
            .iter()
            .filter(counts)
            .filter(over)
            .map(|bound| bound.figure)
    }

    /// Whether a job loses little in guests of this price.
    #[must_use]
    pub fn suits_guests(&self, price: GuestPrice) -> bool {
        price != GuestPrice::Everything
            && self.is_measured()
            && self.against(price).next().is_none()
    }

    /// What was seen, in words.
    pub(crate) fn seen(&self) -> String {
        let figure = |figure| self.figure(figure).unwrap_or_default();
        let guests = self
            .figure(Figure::GuestShare)
            .map_or_else(String::new, |share| {
                let share = share * 100.0;
                format!(", and calls took {share:.1} % of the CPU time of those in guests")
            });
        format!(
            "its tasks spend {:.1} % of their CPU time in the kernel, have {:.0} page faults a CPU \
             second and take {:.1} s{guests}",
            figure(Figure::KernelShare) * 100.0,
            figure(Figure::FaultRate),
            self.busy_seconds / self.ends.max(1.0),
        )
    }
}

/// One figure of a report, within reason.
const fn sane(value: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, MOST_SECONDS)
    } else {
        0.0
    }
}

fn halve<const N: usize>(sums: [&mut f64; N]) {
    sums.into_iter().for_each(|sum| *sum /= 2.0);
}

impl Figure {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::KernelShare => "the time in the kernel",
            Self::FaultRate => "the page faults",
            Self::BootShare => "the short tasks",
            Self::GuestShare => "what calls took in guests",
        }
    }
}
