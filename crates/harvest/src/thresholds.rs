//! Every threshold of the judgement: unit, value, and where it comes from.
//!
//! Two rules hold for all: what protects the owner acts at once, what gives work back waits; and
//! every "on" has an "off" that lies lower and lasts at least [`HOLD`], so that no two resumes
//! come closer than that. Shares are thousandths (‰).
//!
//! | what | on | off |
//! |---|---|---|
//! | owner's load, any policy | [`BUSY_ON`] over [`LOAD_WINDOW`] for [`BUSY_FOR`] | [`BUSY_OFF`] for [`BUSY_CALM`], doubled each time it comes back |
//! | owner's load, `idle-after` and `night` | [`QUIET_ON`] for [`QUIET_FOR`] | [`QUIET_OFF`] for [`QUIET_CALM`] |
//! | memory pressure | [`MEMORY_ON`] | [`MEMORY_OFF`] for [`MEMORY_CALM`], doubled each time it comes back |
//! | heat | the limit, or [`HEAT_BELOW_CRITICAL`] below critical | [`HEAT_OFF_BELOW`] lower for [`HEAT_CALM`] |
//! | free disk | below [`DISK_LOW`] | [`DISK_ENOUGH`] for [`DISK_CALM`] |
//! | power | battery | mains for [`POWER_CALM`] |
//! | a processor for each attempt | they fill the PC, each for [`PLACE_AFTER`] | they do not for [`PLACE_KEEP`], or leave more than [`PLACE_IDLE_MAX`] idle over [`PLACE_JUDGE`] |
//!
//! Where a reason names a measurement without a source, `gleaner bench impact` shows it.

use crate::settings::Hours;
use gleaner_model::{Bytes, Span};

/// Shortest time for which a reason to pause holds: two resumes are never closer. A program that
/// thaws and freezes faster than this flushes the owner's caches for nothing.
pub const HOLD: Span = Span::seconds(2);

/// A source that has not spoken for this many beats of the driver counts as failed, and so does
/// the driver itself: one late beat is load, three are a death.
pub const BEATS_MISSED: u64 = 3;

/// A step of the clock beyond this many beats is a jump or a suspend, and counts as this long:
/// below [`BEATS_MISSED`], so that a jump alone makes no source fail.
pub const BEATS_JUMP: u64 = 2;

/// How often an agent takes a sample, at the latest.
pub const BEAT: Span = Span::seconds(10);

/// A source whose word lies further in the future than this has a wrong clock, and counts as
/// failed.
pub const FUTURE_MAX: Span = Span::seconds(5);

/// After an input the owner counts as active for this long: longer than a pause between two
/// words, shorter than a thought.
pub const ACTIVE_FOR: Span = Span::seconds(2);

/// PCs with at least this many processors keep one free while the owner is active, until
/// [`PROVEN_AFTER`] shows that this is not needed. On smaller ones a free core costs up to half of
/// the harvest and, behind a group at idle priority, saves the owner nothing that could be
/// measured.
pub const FREE_CORE_FROM_MILLI: u32 = 4000;

/// Where the owner's delay is measured and has kept below [`DELAY_MAX`] for this long while tasks
/// ran, no core is kept free: the measurement decides, not a fixed rule. A single delay above it
/// brings the rule back. One core of four is a sixth of what an owner leaves at a desk.
pub const PROVEN_AFTER: Span = Span::seconds(60);

/// Owner's threads may wait this share of wall time, in ‰: one percent is the smallest slow-down
/// that people in studies of resource borrowing notice (Gupta, Lin, Dinda: "Measuring and
/// understanding user comfort with resource borrowing", 2004, find no discomfort below it).
pub const DELAY_MAX: u16 = 10;

/// Two halvings of the allowance are at least this far apart: a cut needs a sample to show.
pub const CUT_APART: Span = Span { ms: 200 };

/// The allowance grows by one processor in this time (additive increase, multiplicative decrease:
/// Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance",
/// 1989).
pub const GROW_EVERY: Span = Span::seconds(2);

/// The allowance never falls below this by measured delay alone, in thousandths of a processor.
pub const ALLOWANCE_MIN_MILLI: u32 = 500;

/// Delay that has not fallen to this share of what it was, after [`FUTILE_AFTER`] at the lowest
/// allowance, is not ours (the owner's programs wait for each other), in ‰.
pub const FUTILE_SHARE: u32 = 700;
/// See [`FUTILE_SHARE`].
pub const FUTILE_AFTER: Span = Span::seconds(2);
/// Delay that is not ours is not listened to for this long; doubled each time in a row.
pub const DEAF_FOR: Span = Span::seconds(60);
/// Longest time without listening.
pub const DEAF_MAX: Span = Span::seconds(600);

/// Tasks that use less than this, in ‰ of all processors, delay nobody.
pub const TASKS_NEGLIGIBLE: u16 = 5;

/// Owner's load is judged by its mean over this time: a program takes all processors for a tenth
/// of a second each time it draws a window, and a build leaves some idle as often.
pub const LOAD_WINDOW: Span = Span::seconds(1);

/// Owner's load from which all is frozen, in ‰ of all processors: a parallel build takes every
/// cycle, and frozen tasks leave it cache, bandwidth and turbo.
pub const BUSY_ON: u16 = 800;
/// How long that mean must last: longer than the 400 ms for which the mean of a load that comes
/// and goes each second is that high, however it is sampled. Such a load freezes nothing.
pub const BUSY_FOR: Span = Span { ms: 600 };
/// Owner's load below which they thaw, in ‰.
pub const BUSY_OFF: u16 = 600;
/// How long it must stay there, the first time.
pub const BUSY_CALM: Span = Span::seconds(3);

/// A reason that comes back within this time after it went doubles the calm that it takes to go
/// again.
pub const RELAPSE: Span = Span::seconds(60);
/// Longest such calm.
pub const CALM_MAX: Span = Span::seconds(60);

/// Owner's load that stops `idle-after`, in ‰ (BOINC and HTCondor's desktop recipe: 25–50 %).
pub const QUIET_ON: u16 = 500;
/// How long it must last.
pub const QUIET_FOR: Span = Span::seconds(2);
/// Owner's load below which `idle-after` starts, in ‰ (HTCondor's desktop recipe: 0.3).
pub const QUIET_OFF: u16 = 300;
/// How long it must stay there: a third of [`IDLE_AFTER`].
pub const QUIET_CALM: Span = Span::seconds(300);

/// Time without an owner after which `screensaver` works: where screens go blank by default.
pub const SCREENSAVER_AFTER: Span = Span::seconds(600);
/// The same where the screen is locked: longer than the key that locks it is held.
pub const LOCKED_AFTER: Span = Span::seconds(5);
/// Time without an owner after which `idle-after` and `night` work (HTCondor's desktop recipe).
pub const IDLE_AFTER: Span = Span::seconds(900);
/// A session that ended counts as there for this long: people log in again at once.
pub const LOGGED_OUT_FOR: Span = Span::seconds(60);

/// Hours of `night`: 20:00 to 06:00, and all weekend (I-Cluster's nights and weekends).
pub const NIGHT: [Hours; 5] = [
    weekday_night(0),
    weekday_night(1),
    weekday_night(2),
    weekday_night(3),
    Hours {
        from: 4 * DAY + 20 * 60,
        to: 6 * 60,
    },
];
const DAY: u16 = 24 * 60;
const fn weekday_night(day: u16) -> Hours {
    Hours {
        from: day * DAY + 20 * 60,
        to: (day + 1) * DAY + 6 * 60,
    }
}

/// Memory pressure that freezes, in ‰ of time in which somebody waited for pages. One page of the
/// owner's that a task displaced costs milliseconds; a queue of them costs seconds.
pub const MEMORY_ON: u16 = 50;
/// Memory pressure below which tasks thaw, in ‰.
pub const MEMORY_OFF: u16 = 10;
/// How long it must stay there, the first time.
pub const MEMORY_CALM: Span = Span::seconds(5);
/// Pressure that lasts this long is not cured by giving back cold pages: attempts go.
pub const SHED_AFTER: Span = Span::seconds(20);
/// One attempt goes each so often, while the need lasts.
pub const SHED_EVERY: Span = Span::seconds(5);
/// Memory kept for the owner's programs: this part of all,
pub const RESERVE_PART: u64 = 10;
/// but not less
pub const RESERVE_MIN: Bytes = Bytes(256 << 20);
/// and not more than this.
pub const RESERVE_MAX: Bytes = Bytes(2 << 30);
/// Room for attempts is told in steps of this, so that it does not change with each sample.
pub const ROOM_STEP: Bytes = Bytes(64 << 20);

/// Disk pressure that halves the share of disk and network, in ‰ of time in which somebody waited
/// for a disk. Processor priority does not help here: saves beside a disk-bound task take twice
/// as long whatever it is.
pub const IO_ON: u16 = 150;
/// Two halvings are at least this far apart.
pub const IO_CUT_APART: Span = Span { ms: 500 };
/// It grows by this much, in ‰, each [`GROW_EVERY`].
pub const IO_GROW: u16 = 100;
/// It never falls below this, in ‰.
pub const IO_MIN: u16 = 50;
/// Share while somebody is at the PC, in ‰: the next save comes without a warning.
pub const IO_PRESENT: u16 = 250;
/// After an input somebody counts as at the PC for this long, where disks are concerned.
pub const IO_PRESENT_FOR: Span = Span::seconds(60);
/// Owner's load from which disk pressure is taken for the owner's although nobody is at the PC,
/// in ‰.
pub const IO_OWNER_LOAD: u16 = 20;

/// Free disk below which tasks pause: the owner's programs fail in ugly ways on a full one.
pub const DISK_LOW: Bytes = Bytes(1 << 30);
/// Free disk from which they go on.
pub const DISK_ENOUGH: Bytes = Bytes(2 << 30);
/// How long it must stay there.
pub const DISK_CALM: Span = Span::seconds(10);

/// Tasks pause this many degrees below the temperature at which the PC protects itself.
pub const HEAT_BELOW_CRITICAL: i16 = 10;
/// They get half of the processors from this many degrees below the limit,
pub const WARM_BELOW: i16 = 8;
/// and go on this many degrees below it,
pub const HEAT_OFF_BELOW: i16 = 12;
/// after this long: fans that come and go annoy more than fans that run.
pub const HEAT_CALM: Span = Span::seconds(30);

/// Mains must be back for this long: plugs bounce.
pub const POWER_CALM: Span = Span::seconds(5);
/// Below this charge, in percent, tasks pause on battery even where they may use it.
pub const CHARGE_MIN: u8 = 30;

/// A PC that said it would sleep and is still awake after this long does not sleep.
pub const SLEEP_MAX: Span = Span::seconds(60);

/// Attempts that have run for less than this are where the kernel puts them: telling a shim costs
/// more than a short task gains.
pub const PLACE_AFTER: Span = Span { ms: 250 };

/// How long attempts keep their processors when they no longer fill the PC: the next task starts
/// within that, and then nobody has to move.
pub const PLACE_KEEP: Span = Span { ms: 500 };

/// Over how long it is judged what placing led to: several times the second that a word on the
/// PC's load spans.
pub const PLACE_JUDGE: Span = Span::seconds(5);

/// An idle share of the PC, in ‰, above which attempts do not fill it, whatever they asked for:
/// three times what tasks that always want to run left at worst where only the kernel placed them.
pub const PLACE_IDLE_MAX: u16 = 100;

/// How long nothing is placed after that. A program that waits for its input now may compute in
/// a minute.
pub const PLACE_LOOSE: Span = Span::seconds(60);

/// Share of one processor, in ‰, from which the owner's use of it leaves next to nothing: then
/// attempts change places, so that it is not always the same one that waits.
pub const PLACE_TAKEN: u16 = 900;
