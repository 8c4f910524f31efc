//! The commands of a submit file, as data: which are read, which mean nothing here, and which would
//! make another job of it.

use crate::nearest::nearest;

/// What is done about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is read.
    Read,
    /// It concerns another system's bookkeeping.
    PassedOver,
    /// Why it is refused, and what to do.
    Refused(&'static str),
}

/// Those that are read.
const READ: &[&str] = &[
    "universe",
    "executable",
    "arguments",
    "environment",
    "env",
    "getenv",
    "input",
    "transfer_input_files",
    "transfer_output_files",
    "transfer_executable",
    "should_transfer_files",
    "initialdir",
    "iwd",
    "request_cpus",
    "request_memory",
    "request_disk",
    "requirements",
    "priority",
    "prio",
    "job_batch_name",
    "batch_name",
    "max_retries",
    "checkpoint_exit_code",
    "transfer_checkpoint_files",
    "allowed_execute_duration",
    "allowed_job_duration",
];

/// Those without effect: standard output and error come home as `stdout` and `stderr`, and the
/// server keeps what others write to logs.
const PASSED_OVER: &[&str] = &[
    "output",
    "error",
    "log",
    "log_xml",
    "stream_output",
    "stream_error",
    "stream_input",
    "when_to_transfer_output",
    "transfer_output_remaps",
    "preserve_relative_paths",
    "notification",
    "notify_user",
    "email_attributes",
    "rank",
    "nice_user",
    "accounting_group",
    "accounting_group_user",
    "concurrency_limits",
    "leave_in_queue",
    "description",
    "image_size",
    "coresize",
    "copy_to_spool",
    "hold",
    "keep_claim_idle",
    "job_lease_duration",
    "job_max_vacate_time",
    "job_ad_information_attrs",
    "max_idle",
    "max_materialize",
    "submit_event_notes",
    "x509userproxy",
    "use_x509userproxy",
    "encrypt_input_files",
    "encrypt_output_files",
    "encrypt_execute_directory",
    "run_as_owner",
    "load_profile",
    "want_graceful_removal",
    "success_exit_code",
    "on_exit_hold",
    "on_exit_hold_reason",
    "on_exit_remove",
    "periodic_hold",
    "periodic_release",
    "periodic_remove",
    "retry_until",
];

/// Those that would make another job of it.
const REFUSED: &[(&str, &str)] = &[
    (
        "request_gpus",
        "nodes offer no graphics processors; take the line out",
    ),
    (
        "require_gpus",
        "nodes offer no graphics processors; take the line out",
    ),
    (
        "machine_count",
        "tasks run by themselves; take the line out",
    ),
    (
        "docker_image",
        "bring it by `gleaner image import`, and write a job file with image = NAME",
    ),
    (
        "container_image",
        "bring it by `gleaner image import`, and write a job file with image = NAME",
    ),
    ("grid_resource", "there is no other system behind this one"),
    ("java_vm_args", "call java as the executable"),
    ("jar_files", "call java as the executable"),
    ("deferral_time", "tasks start when a node is idle"),
    ("cron_minute", "tasks start when a node is idle"),
    ("cron_hour", "tasks start when a node is idle"),
    ("noop_job", "a job that does nothing needs no PC"),
];

/// Other names are macros.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "");
    let is = |known: &&str| plain(known) == plain(name);
    if READ.iter().any(is) {
        return Some(Meaning::Read);
    }
    if PASSED_OVER.iter().any(is) {
        return Some(Meaning::PassedOver);
    }
    let refused = REFUSED.iter().find(|(known, _)| is(known));
    refused.map(|(_, why)| Meaning::Refused(why))
}

/// The command that somebody has misspelt.
pub(super) fn near(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let all = READ.iter().chain(PASSED_OVER).copied();
    let near = nearest(&name, all)?;
    (strsim::damerau_levenshtein(&name, near) <= 2).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_without_underscores_and_with_capitals_are_the_same() {
        assert_eq!(meaning("RequestMemory"), Some(Meaning::Read));
        assert_eq!(meaning("WhenToTransferOutput"), Some(Meaning::PassedOver));
        assert!(matches!(meaning("request_GPUs"), Some(Meaning::Refused(_))));
        assert_eq!(meaning("my_macro"), None);
        assert_eq!(near("argumens"), Some("arguments"));
        assert_eq!(near("cutoff"), None);
    }
}
