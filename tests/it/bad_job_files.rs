//! Does a wrong job file get a sentence that helps, and code 2?

use crate::pool::{Desk, Pool};

/// Submits a wrong job and checks the code and some words of the complaint.
#[track_caller]
fn refused(job: &str, words: &[&str]) {
    let desk = Desk::new();
    desk.write("job.toml", job).write("empty.txt", "");
    Pool::shared()
        .gleaner(&desk, &["submit", "job.toml"])
        .exits(2)
        .complains_of(words);
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    refused("[task]\ncomand = [\"true\"]\n", &["comand", "command"]);
    refused(
        "[task]\ncommand = [\"true\"]\n[limits]\nmemroy = \"1GiB\"\n",
        &["memroy", "memory"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweeep]\ni = { range = [1, 2] }\n",
        &["sweeep", "sweep"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\ni = { rang = [1, 2] }\n",
        &["rang", "range"],
    );
}

#[test]
fn wrong_types_name_the_key() {
    refused("[task]\ncommand = \"true\"\n", &["command"]);
    refused(
        "[task]\ncommand = [\"true\"]\n[limits]\nmemory = \"much\"\n",
        &["memory", "MiB"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[limits]\ntime = -4\n",
        &["time"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[retry]\nattempts = \"three\"\n",
        &["attempts"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\ni = { range = [1] }\n",
        &["range"],
    );
}

#[test]
fn what_is_missing_is_named() {
    refused("", &["task"]);
    refused("[task]\n", &["command"]);
    refused("[task]\ncommand = []\n", &["command"]);
    refused(
        "[task]\ncommand = [\"cat\", \"x\"]\ninputs = { x = \"not/there.txt\" }\n",
        &["not/there.txt"],
    );
    refused(
        "[task]\ncommand = [\"cat\"]\n[sweep]\nf = { files = \"none/*.dat\" }\n",
        &["none/*.dat"],
    );
    refused(
        "[task]\ncommand = [\"cat\"]\n[sweep]\nf = { lines = \"none.txt\" }\n",
        &["none.txt"],
    );
}

#[test]
fn not_toml_says_where() {
    refused("[task\ncommand = [\"true\"]\n", &["1"]);
}

#[test]
fn sweeps_of_nothing_and_of_too_much() {
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\ni = { range = [5, 4] }\n",
        &["range"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\ni = { list = [] }\n",
        &["i"],
    );
    refused(
        "[task]\ncommand = [\"echo\", \"{l}\"]\n[sweep]\nl = { lines = \"empty.txt\" }\n",
        &["empty"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\ni = { range = [1, 1000000000] }\n",
        &["1,000,000"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\na = { range = [1, 100000] }\nb = { range = [1, 10000] }\n",
        &["1,000,000"],
    );
}

#[test]
fn zipped_axes_of_different_length() {
    refused(
        "[task]\ncommand = [\"true\"]\n[sweep]\nmode = \"zip\"\na = { range = [1, 2] }\nb = { range = [1, 3] }\n",
        &["zip"],
    );
}

#[test]
fn paths_that_leave_the_scratch_directory() {
    refused(
        "[task]\ncommand = [\"true\"]\noutputs = [\"../x\"]\n",
        &["../x"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\noutputs = [\"/etc/passwd\"]\n",
        &["/etc/passwd"],
    );
    refused(
        "[task]\ncommand = [\"true\"]\ninputs = { \"../x\" = \"empty.txt\" }\n",
        &["../x"],
    );
}

#[test]
fn a_file_that_is_not_there() {
    let desk = Desk::new();
    Pool::shared()
        .gleaner(&desk, &["submit", "gone.toml"])
        .exits(2)
        .complains_of(&["gone.toml"]);
}

#[test]
fn a_name_near_an_axis_draws_a_warning() {
    let desk = Desk::new();
    desk.write(
        "job.toml",
        "[task]\ncommand = [\"echo\", \"{sed}\"]\n[sweep]\nseed = { range = [1, 1] }\n",
    );
    Pool::shared()
        .gleaner(&desk, &["submit", "job.toml"])
        .exits(0)
        .complains_of(&["{sed}", "seed"]);
}
