//! What owners are like, in figures. They are fits of ours; the recordings themselves are not
//! here.
//!
//! Two sources: the log-on records of about 300 library PCs of a university over two years (in
//! use, free, off; every change to the second), and processor, keyboard and mouse records of 91
//! developers' PCs (5-minute means). How far a fit is from its source stands beside it.

use crate::chance::Chance;

/// Share of PCs in use and of PCs off in each hour of a day, in thousandths.
pub(crate) struct Day {
    pub(crate) used: [u16; 24],
    pub(crate) off: [u16; 24],
}

/// Monday to Friday. Library PCs; means over the days, single hours differ by up to 60.
pub(crate) const WEEKDAY: Day = Day {
    used: [
        109, 93, 81, 75, 71, 69, 73, 85, 135, 217, 304, 379, 389, 390, 394, 375, 360, 316, 272,
        244, 236, 223, 194, 156,
    ],
    off: [
        262, 266, 270, 272, 273, 273, 196, 117, 115, 108, 100, 92, 88, 86, 84, 88, 91, 103, 114,
        142, 144, 147, 194, 201,
    ],
};

/// Saturday.
pub(crate) const SATURDAY: Day = Day {
    used: [
        54, 53, 53, 53, 53, 53, 59, 63, 65, 66, 83, 110, 141, 172, 200, 205, 193, 163, 119, 84, 83,
        78, 58, 58,
    ],
    off: [
        379, 377, 377, 377, 377, 377, 245, 112, 110, 108, 107, 106, 106, 104, 103, 102, 104, 131,
        148, 232, 233, 235, 378, 379,
    ],
};

/// Sunday.
pub(crate) const SUNDAY: Day = Day {
    used: [
        56, 56, 56, 56, 56, 56, 61, 52, 53, 53, 53, 53, 102, 173, 226, 254, 259, 250, 236, 225,
        225, 211, 185, 148,
    ],
    off: [
        363, 361, 361, 361, 361, 361, 242, 141, 126, 126, 125, 131, 129, 122, 116, 113, 111, 112,
        118, 118, 117, 118, 142, 148,
    ],
};

/// The table of a day of the week, Monday first.
pub(crate) const fn day(of_week: u64) -> &'static Day {
    match of_week {
        5 => &SATURDAY,
        6 => &SUNDAY,
        _ => &WEEKDAY,
    }
}

/// Sessions: Weibull (shape; scale in seconds). Library PCs, 343,000 sessions, largest distance of
/// the distributions 0.05.
pub(crate) const SESSION: (f64, f64) = (0.735, 4871.0);
/// Its mean in hours.
pub(crate) const SESSION_MEAN_H: f64 = 1.64;

/// How much more or less than the table a PC is used: lognormal. Of the library PCs 90 % are in
/// use for 0.36 to 2.2 times the median.
pub(crate) const PERSONA_SIGMA: f64 = 0.55;

/// A PC that goes off for long comes back after this many hours on average, calendar apart.
pub(crate) const OFF_MEAN_H: f64 = 8.0;
/// Restarts of a PC in an hour: 58 % of all times off are shorter than five minutes.
pub(crate) const RESTARTS_PER_H: f64 = 0.023;
/// A restart, in seconds: lognormal.
pub(crate) const RESTART: (f64, f64) = (60.0, 0.6);

/// Times with input: lognormal (median in seconds; sigma of the logarithm). Developers' PCs, 988
/// of them.
pub(crate) const TOUCHING: (f64, f64) = (28.0 * 60.0, 1.4);
/// Times without input within a session, 871 of them.
const THINKING: (f64, f64) = (10.0 * 60.0, 1.0);

/// Within a time with input: hands on keys, then a thought (lognormal, in seconds). An
/// assumption: no recording tells what happens within minutes.
pub(crate) const TYPING: (f64, f64) = (15.0, 0.8);
/// See [`TYPING`].
pub(crate) const PAUSE: (f64, f64) = (10.0, 1.0);

/// Quantiles of the idle share of processors while there is input. Developers' PCs.
const IDLE_TOUCHING: [(f64, f64); 7] = [
    (0.0, 0.05),
    (0.05, 0.446),
    (0.25, 0.693),
    (0.5, 0.836),
    (0.75, 0.913),
    (0.95, 0.966),
    (1.0, 0.99),
];
/// The same while there is none.
const IDLE_UNTOUCHED: [(f64, f64); 7] = [
    (0.0, 0.2),
    (0.05, 0.636),
    (0.25, 0.864),
    (0.5, 0.932),
    (0.75, 0.970),
    (0.95, 0.986),
    (1.0, 0.998),
];
/// Idle share of a PC that nobody is logged in at (laboratories: 97 to 98 %; Domingues, Marques,
/// Silva, "Resource usage of Windows computer laboratories", 2005).
pub(crate) const IDLE_FREE: f64 = 0.975;

/// Such a share holds for this long, in seconds on average.
pub(crate) const LEVEL_S: f64 = 600.0;

/// What is done at a PC, as parts of developers' load, and how often a program takes all
/// processors for a while (times in an hour of input; mean seconds). An assumption, laid so that
/// means stay those of the sources: laboratories 95 % idle in use, developers 78 %.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) load: f64,
    pub(crate) bursts_per_h: f64,
    pub(crate) burst_s: f64,
}
pub(crate) const LABORATORY: Kind = Kind {
    load: 0.22,
    bursts_per_h: 0.5,
    burst_s: 10.0,
};
pub(crate) const OFFICE: Kind = Kind {
    load: 0.5,
    bursts_per_h: 1.0,
    burst_s: 10.0,
};
pub(crate) const DEVELOPER: Kind = Kind {
    load: 0.9,
    bursts_per_h: 3.0,
    burst_s: 30.0,
};

/// PCs of one room, which share classes and updates.
pub(crate) const ROOM: u32 = 30;
/// A class begins in a room in one hour of this many, on weekdays from 8 to 17: most of its PCs
/// are taken within two minutes.
pub(crate) const CLASS_HOURS: u64 = 24;
/// Share of the room's PCs that a class takes.
pub(crate) const CLASS_SHARE: f64 = 0.8;
/// Each week, Sunday at 7, a room's PCs install updates and restart within ten minutes: the
/// library saw up to 82 % of a pool off at once.
pub(crate) const UPDATE_HOUR: u64 = 6 * 24 + 7;

/// How long somebody goes on to use keys and pointer, or not to, in milliseconds.
pub(crate) fn spell_ms(touching: bool, chance: &mut Chance) -> u64 {
    let (median_s, sigma) = if touching { TOUCHING } else { THINKING };
    chance.lognormal_ms(median_s, sigma)
}

/// Idle share of the processors meanwhile.
pub(crate) fn idle(touching: bool, chance: &mut Chance) -> f64 {
    chance.quantile(if touching {
        &IDLE_TOUCHING
    } else {
        &IDLE_UNTOUCHED
    })
}
