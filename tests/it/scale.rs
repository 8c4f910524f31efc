//! Does `gleaner bench scale` let pretended nodes work through a real server's queue, and count
//! each task once? Its times are not looked at.

use crate::pool::{Desk, binary, command, finish};

#[test]
fn pretended_nodes_are_enrolled_work_and_are_counted_once() {
    let desk = Desk::new();
    let arguments = [
        "bench",
        "scale",
        "--nodes",
        "50",
        "--tasks",
        "2000",
        "--task-seconds",
        "1",
        "--seconds",
        "3",
        "--connections",
        "4",
        "--json",
    ];
    let done = finish(&mut command(binary(), &desk, &arguments));
    // A missed promise is an exit code of its own; on a busy PC it may happen.
    assert!([0, 1].contains(&done.code), "{done:?}");
    let report = done.json();
    assert_eq!(report["bench"], "scale");
    let rows = report["rows"].as_array().unwrap();
    let figure = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no row {name}: {report}"));
        row["figure"].as_f64().unwrap()
    };
    assert!(figure("calls") > 0.0);
    assert!(figure("all nodes enrolled") > 0.0);
    assert!(figure("reply to a node, p99") <= figure("reply to a node, longest"));
    assert!(figure("server memory, most") > 1.0);
    assert!(figure("reply to a user, p99") > 0.0);
    assert!(figure("tasks counted other than once").abs() < f64::EPSILON);
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let desk = Desk::new();
    for option in ["--nodes", "--tasks", "--seconds", "--connections"] {
        let arguments = ["bench", "scale", option, "0"];
        finish(&mut command(binary(), &desk, &arguments))
            .exits(2)
            .complains_of(&[option]);
    }
}
