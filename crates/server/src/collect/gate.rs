//! When the sweep runs: one at a time, hourly, and soon after a job was deleted.

/// One sweep at a time, and who wakes it.
#[derive(Debug, Default)]
pub(crate) struct SweepGate {
    pub(super) one: tokio::sync::Mutex<()>,
    pub(super) deleted: tokio::sync::Notify,
}

impl SweepGate {
    /// A job was deleted: what it left in the store is removed soon.
    pub(crate) fn wake(&self) {
        self.deleted.notify_one();
    }
}
