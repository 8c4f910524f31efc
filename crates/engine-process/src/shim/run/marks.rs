//! What is remembered of each limit of one attempt: the most that was seen, and what was done.

use gleaner_model::{LimitKind, LimitRecord, Limits, Time};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
struct Mark {
    peak: f64,
    at: Option<Time>,
    action: Option<&'static str>,
}

/// One mark a limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(BTreeMap<LimitKind, Mark>);

impl Marks {
    /// Notes a value that was seen.
    pub(crate) fn see(&mut self, limit: LimitKind, value: f64) {
        let mark = self.0.entry(limit).or_default();
        mark.peak = mark.peak.max(value);
    }

    /// Notes that the limit was passed and what is done about it; the first time stays.
    pub(crate) fn pass(&mut self, limit: LimitKind, action: &'static str, now: Time) {
        let mark = self.0.entry(limit).or_default();
        mark.at.get_or_insert(now);
        mark.action.get_or_insert(action);
    }

    /// One record a limit that the attempt has.
    pub(crate) fn records(&self, limits: &Limits) -> Vec<LimitRecord> {
        let record = |(limit, value): (LimitKind, f64)| {
            let mark = self.0.get(&limit).cloned().unwrap_or_default();
            LimitRecord {
                limit,
                value,
                peak: mark.peak,
                at: mark.at,
                action: mark.action.unwrap_or("none").to_owned(),
            }
        };
        values(limits).into_iter().map(record).collect()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a record shows sizes to people; 2^53 bytes is 9 PB"
)]
pub(crate) const fn number(value: u64) -> f64 {
    value as f64
}

/// Every limit that is set, in the unit of its record.
fn values(limits: &Limits) -> Vec<(LimitKind, f64)> {
    let mut all = vec![
        (LimitKind::Cpus, f64::from(limits.cpus.milli) / 1000.0),
        (LimitKind::Memory, number(limits.memory.0)),
        (LimitKind::Disk, number(limits.disk.0)),
        (LimitKind::Time, limits.time.as_seconds()),
        (LimitKind::Processes, f64::from(limits.processes)),
        (LimitKind::Output, number(limits.output.0)),
        (LimitKind::Network, 0.0),
    ];
    let optional = [
        (
            LimitKind::CpuTime,
            limits.cpu_time.map(gleaner_model::Span::as_seconds),
        ),
        (LimitKind::DiskIo, limits.disk_io.map(|rate| number(rate.0))),
        (LimitKind::PageFaults, limits.page_faults.map(f64::from)),
        (LimitKind::NetIo, limits.net_io.map(|rate| number(rate.0))),
    ];
    all.extend(
        optional
            .into_iter()
            .filter_map(|(kind, value)| Some((kind, value?))),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_passing_and_the_highest_peak_stay() {
        let mut marks = Marks::default();
        marks.see(LimitKind::Disk, 5.0);
        marks.see(LimitKind::Disk, 3.0);
        marks.pass(LimitKind::Disk, "ended", Time { ms: 7 });
        marks.pass(LimitKind::Disk, "other", Time { ms: 9 });
        let records = marks.records(&Limits::default());
        let disk = records
            .iter()
            .find(|record| record.limit == LimitKind::Disk)
            .unwrap();
        assert!((disk.peak - 5.0).abs() < f64::EPSILON);
        assert_eq!(
            (disk.at, disk.action.as_str()),
            (Some(Time { ms: 7 }), "ended")
        );
        let time = records
            .iter()
            .find(|record| record.limit == LimitKind::Time)
            .unwrap();
        assert_eq!(time.action, "none");
        assert_eq!(records.len(), 7);
    }
}
